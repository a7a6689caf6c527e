//! Who may use the HTTP API of a running producer: tokens, roles, sessions of browsers, and what happens without any token.

use std::collections::BTreeMap;

use anyhow::Context as _;
use fleet::{DEADLINE, Fleet, Kind, eventually};
use producer::web::access::{Need, ROUTES};
use reqwest::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, ORIGIN, RETRY_AFTER,
    SET_COOKIE, WWW_AUTHENTICATE,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use sandbox::SandboxConfig;
use serde_json::{Value, json};
use shared::domain::access::{Right, Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::api::Producer;
use crate::command;
use crate::sql::{execute, value, values};

/// Makes a token by command and returns it.
pub(crate) async fn token(fleet: &Fleet, name: &str, role: &str) -> anyhow::Result<String> {
    let args = [
        "tokens", "create", name, "--role", role, "--reason", "test", "--by", "ann",
    ];
    let ended = command::producer(&fleet.environment, &args).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(ended.stdout.trim_end().to_owned())
}

async fn revoke(fleet: &Fleet, name: &str) -> anyhow::Result<command::Ended> {
    let args = ["tokens", "revoke", name, "--reason", "test", "--by", "ann"];
    command::producer(&fleet.environment, &args).await
}

fn post(producer: &Producer, path: &str, body: &Value) -> RequestBuilder {
    producer.request(Method::POST, path).json(body)
}

fn jobs(producer: &Producer) -> RequestBuilder {
    producer.request(Method::GET, "/v1/jobs")
}

/// What is answered to a head as it is here, which no client sends.
async fn sent(producer: &Producer, head: &str) -> anyhow::Result<String> {
    let mut connection = producer.connect().await?;
    let request = format!("{head}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Signs in and returns what the browser is to keep: name and value, and the whole line.
async fn sign_in(producer: &Producer, token: &str) -> anyhow::Result<(String, String)> {
    let request = post(producer, "/session", &json!({ "token": token }));
    let answer = producer.send(request).await?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    let line = answer.headers[SET_COOKIE].to_str()?.to_owned();
    let pair = line.split(';').next().context("no cookie")?.to_owned();
    Ok((pair, line))
}

/// The end of the type of a problem; empty for everything else.
async fn problem(request: RequestBuilder) -> anyhow::Result<(u16, String)> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let is_problem = response.headers().get(CONTENT_TYPE);
    // A stream of events does not end.
    if is_problem.is_none_or(|kind| kind != "application/problem+json") {
        return Ok((status, String::new()));
    }
    let document: Value = response.json().await?;
    let kind = document["type"].as_str().unwrap_or_default();
    Ok((
        status,
        kind.trim_start_matches("urn:ghostfleet:problem:")
            .to_owned(),
    ))
}

/// Over every route and every role. No request has a body, so that one that may pass is refused by its route and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_what_its_line_says() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let mut tokens = BTreeMap::new();
        for role in Role::ALL {
            tokens.insert(*role, token(fleet, role.as_str(), role.as_str()).await?);
        }
        let id = Uuid::from_u128(7).to_string();
        for (method, route, need) in ROUTES {
            let is_numbered = ["dead-letters", "audits", "operations"]
                .iter()
                .any(|part| route.contains(part));
            let number = if is_numbered { "7" } else { &id };
            let path = route.replace("{id}", number).replace("{token}", &id);
            let path = path
                .replace("{file}", "app.js")
                .replace("{vendor}", "sync")
                .replace("{account}", "none");
            let send = || producer.request(method.clone(), &path);
            let line = format!("{method} {route}");
            let (status, kind) = problem(send()).await?;
            match need {
                Need::Token | Need::Right(_) => {
                    let answer = producer.refused(send(), 401, "unauthorized").await?;
                    assert_eq!(
                        answer.headers[WWW_AUTHENTICATE],
                        "Bearer realm=\"ghostfleet\""
                    );
                    assert_eq!(answer.headers[CACHE_CONTROL], "no-store", "{line}");
                    if *method == Method::GET {
                        let head = producer.request(Method::HEAD, &path).send().await?;
                        assert_eq!(head.status(), StatusCode::UNAUTHORIZED, "{line}");
                    }
                }
                Need::Signature => assert_eq!((status, &*kind), (401, "bad-signature"), "{line}"),
                Need::Nothing => {
                    assert!(matches!(status, 200 | 204 | 415), "{line}: {status} {kind}")
                }
            }
            for (role, token) in &tokens {
                let (status, kind) = problem(send().bearer_auth(token)).await?;
                let line = format!("{role}: {line}: {status} {kind}");
                match need {
                    Need::Right(right) if !role.gives(*right) => {
                        assert_eq!((status, &*kind), (403, "forbidden"), "{line}");
                    }
                    Need::Right(_) | Need::Token => {
                        // It came to its route, which is there.
                        let other = ["not-found", "method-not-allowed", "internal"];
                        assert!(
                            !matches!(status, 401 | 403) && !other.contains(&&*kind),
                            "{line}"
                        );
                        assert!(*method == Method::GET || status == 415, "{line}");
                    }
                    Need::Signature | Need::Nothing => {}
                }
                let is_read_only = matches!(need, Need::Right(_)) && *role == Role::Read;
                // A preview is a POST because its filter may be long.
                let only_reads = *method == Method::GET || *route == "/v1/operations/preview";
                assert!(!is_read_only || only_reads || status == 403, "{line}");
            }
            // What has no line is not reachable, whoever asks.
            let other = producer
                .request(Method::TRACE, &path)
                .bearer_auth(&tokens[&Role::Admin]);
            let answer = producer.refused(other, 405, "method-not-allowed").await?;
            assert!(
                answer.headers[ALLOW].to_str()?.contains(method.as_str()),
                "{line}"
            );
        }
        assert!(
            ROUTES
                .iter()
                .any(|route| route.2 == Need::Right(Right::Operate))
        );
        producer
            .refused(producer.request(Method::GET, "/v1/none"), 404, "not-found")
            .await?;
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_only_this_machine_is_answered_and_the_first_closes_for_good()
-> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = fleet.environment.clone().with("HTTP_ADDR", "0.0.0.0:0");
        let mut process = fleet.process("outside", "producer", &environment)?;
        let warned = process.logged(DEADLINE, |line| {
            let message = line["message"].as_str().unwrap_or_default();
            line["level"] == "WARN"
                && message.contains("no access tokens")
                && message.contains("producer tokens create")
        });
        warned.await?;
        process.terminate(DEADLINE).await?;

        let producer = Producer::start(fleet, &fleet.environment).await?;
        let id = producer
            .created(producer.post(&fleet.media.request(Kind::Inpaint, 0)))
            .await?;
        assert_eq!(producer.send(jobs(&producer)).await?.status, StatusCode::OK);
        let me = producer.get("/session").await?;
        assert_eq!(
            (&me.json["name"], &me.json["role"]),
            (&Value::Null, &json!("admin"))
        );
        // Not this machine, or not meant: a proxy's client, another name, another site's page.
        for path in ["/v1/jobs", "/session"] {
            let outside = producer
                .request(Method::GET, path)
                .header("X-Forwarded-For", "192.0.2.1");
            producer.refused(outside, 403, "no-tokens").await?;
        }
        producer
            .refused(jobs(&producer).header(HOST, "fleet.test"), 403, "no-tokens")
            .await?;
        for (head, status) in [
            ("GET /v1/jobs HTTP/1.1\r\nHost: localhost", "200"),
            (
                "GET http://fleet.test/v1/jobs HTTP/1.1\r\nHost: localhost",
                "403",
            ),
            (
                "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nHost: fleet.test",
                "403",
            ),
            (
                "GET http://fleet.test/session HTTP/1.1\r\nHost: localhost",
                "403",
            ),
        ] {
            let answer = sent(&producer, head).await?;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{head}: {answer}");
        }
        let cancel = || {
            post(
                &producer,
                &format!("/v1/jobs/{id}/cancel"),
                &json!({ "reason": "r" }),
            )
        };
        let page = cancel().header(ORIGIN, "https://elsewhere.test");
        producer.refused(page, 403, "cross-site").await?;
        producer
            .refused(
                cancel().header("Sec-Fetch-Site", "same-site"),
                403,
                "cross-site",
            )
            .await?;
        let callback = |producer: &Producer| {
            let path = format!("/webhooks/sync/{}", Uuid::from_u128(7));
            producer
                .request(Method::POST, &path)
                .header("X-Forwarded-For", "192.0.2.1")
        };
        producer
            .refused(callback(&producer), 401, "bad-signature")
            .await?;

        let ann = token(fleet, "ann", "read").await?;
        producer
            .refused(jobs(&producer), 401, "unauthorized")
            .await?;
        let outside = jobs(&producer)
            .header("X-Forwarded-For", "192.0.2.1")
            .bearer_auth(&ann);
        assert_eq!(producer.send(outside).await?.status, StatusCode::OK);
        revoke(fleet, "ann").await?.said(0, "is revoked");
        let answer = producer
            .refused(jobs(&producer).bearer_auth(&ann), 401, "wrong-token")
            .await?;
        assert!(
            answer.headers[WWW_AUTHENTICATE]
                .to_str()?
                .contains("invalid_token")
        );
        producer
            .refused(jobs(&producer), 401, "unauthorized")
            .await?;
        producer
            .refused(callback(&producer), 401, "bad-signature")
            .await?;
        producer.stop().await?;
        // Also one that starts later.
        let producer = Producer::start(fleet, &fleet.environment).await?;
        producer
            .refused(jobs(&producer), 401, "unauthorized")
            .await?;
        let emptied = execute(&fleet.database.url, "DELETE FROM access_tokens").await;
        assert!(emptied.is_err(), "nor by hand");
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_and_only_our_own_page_acts_for_it() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let ann = token(fleet, "ann", "operate").await?;
        // Whoever asks who they are is told that it is nobody; only a wrong token is refused.
        let ask = || producer.request(Method::GET, "/session");
        let nobody = json!({ "name": null, "role": null, "expires_at": null });
        let answer = producer.send(ask()).await?;
        assert_eq!((answer.status, &answer.json), (StatusCode::OK, &nobody));
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        let wrong = producer.refused(ask().bearer_auth(format!("{ann}0")), 401, "wrong-token").await?;
        assert_eq!(wrong.headers[CACHE_CONTROL], "no-store");
        let (cookie, line) = sign_in(&producer, &ann).await?;
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/;", "; Max-Age=43200"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("Secure") && !line.contains(&ann), "{line}");
        let proxied = post(&producer, "/session", &json!({ "token": ann })).header("X-Forwarded-Proto", "https");
        let secure = producer.send(proxied).await?;
        assert!(secure.headers[SET_COOKIE].to_str()?.ends_with("; Secure"));

        let with = |request: RequestBuilder| request.header(COOKIE, &cookie);
        assert_eq!(producer.send(with(jobs(&producer))).await?.status, StatusCode::OK);
        let me = producer.send(with(producer.request(Method::GET, "/session"))).await?;
        assert_eq!((&me.json["name"], &me.json["role"]), (&json!("ann"), &json!("operate")));
        assert!(me.json["expires_at"].is_string(), "{}", me.json);

        let job = format!("/v1/jobs/{}/cancel", Uuid::from_u128(7));
        let cancel = || with(post(&producer, &job, &json!({ "reason": "r" })));
        let own = producer.request(Method::GET, "/").build()?.url().origin().ascii_serialization();
        for foreign in [
            cancel(),
            cancel().header(ORIGIN, "https://elsewhere.test"),
            cancel().header(ORIGIN, "null"),
            cancel().header("Sec-Fetch-Site", "cross-site").header(ORIGIN, &own),
            cancel().header("Sec-Fetch-Site", "same-site"),
            cancel().header("Sec-Fetch-Site", "none"),
        ] {
            producer.refused(foreign, 403, "cross-site").await?;
        }
        for ours in [cancel().header(ORIGIN, &own), cancel().header("Sec-Fetch-Site", "same-origin")] {
            producer.refused(ours, 404, "job-not-found").await?;
        }
        let create = with(producer.post(&fleet.media.request(Kind::Inpaint, 0))).header(ORIGIN, &own);
        producer.refused(create, 403, "forbidden").await?;
        let planted = post(&producer, "/session", &json!({ "token": ann })).header(ORIGIN, "https://elsewhere.test");
        producer.refused(planted, 403, "cross-site").await?;
        let faults = producer.refused(post(&producer, "/session", &json!({ "x": 1 })), 422, "invalid-request").await?;
        assert_eq!(faults.faults(), [("/token", "missing"), ("/x", "unknown_field")]);
        let wrong = post(&producer, "/session", &json!({ "token": format!("{ann}0") }));
        producer.refused(wrong, 401, "wrong-token").await?;

        // Nothing in the database opens the API.
        let rows = "SELECT t::text AS value FROM access_tokens t UNION ALL SELECT s::text FROM access_sessions s \
                    UNION ALL SELECT e::text FROM operator_events e";
        for row in values(&fleet.database.url, rows).await?.into_iter().flatten() {
            assert!(!row.contains(&ann[3..]) && !row.contains(cookie.split_once("gfs_").unwrap().1), "{row}");
        }

        // It ends with the sign-out, with its time, and with its token.
        let foreign = with(producer.request(Method::DELETE, "/session")).header(ORIGIN, "https://elsewhere.test");
        producer.refused(foreign, 403, "cross-site").await?;
        let out = with(producer.request(Method::DELETE, "/session")).send().await?;
        assert_eq!(out.status(), StatusCode::NO_CONTENT);
        let over = async |cookie: &str| {
            let request = jobs(&producer).header(COOKIE, cookie);
            let answer = producer.refused(request, 401, "unauthorized").await?;
            assert!(answer.headers[SET_COOKIE].to_str()?.contains("Max-Age=0"), "the browser forgets it");
            let answer = producer.send(ask().header(COOKIE, cookie)).await?;
            assert_eq!((answer.status, &answer.json), (StatusCode::OK, &nobody));
            assert!(answer.headers[SET_COOKIE].to_str()?.contains("Max-Age=0"), "the browser forgets it");
            anyhow::Ok(())
        };
        over(&cookie).await?;
        let (cookie, _) = sign_in(&producer, &ann).await?;
        execute(&fleet.database.url, "UPDATE access_sessions SET expires_at = now()").await?;
        over(&cookie).await?;
        let (cookie, _) = sign_in(&producer, &ann).await?;
        let left = value(&fleet.database.url, "SELECT count(*)::text AS value FROM access_sessions").await?;
        assert_eq!(left.as_deref(), Some("1"), "those that are over are removed");
        let good = jobs(&producer).header(COOKIE, &cookie);
        assert_eq!(producer.send(good).await?.status, StatusCode::OK);
        revoke(fleet, "ann").await?.said(0, "is revoked");
        over(&cookie).await?;
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_has_the_tokens_name_whatever_the_caller_says() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let local = producer.created(producer.post(&fleet.media.request(Kind::Inpaint, 0))).await?;
        let (shop, ops) = (token(fleet, "shop", "submit").await?, token(fleet, "ops", "operate").await?);
        let order = producer.post(&fleet.media.request(Kind::Inpaint, 1)).bearer_auth(&shop);
        let id = producer.created(order).await?;
        let own = producer.request(Method::GET, &format!("/v1/jobs/{id}")).bearer_auth(&shop);
        assert_eq!(producer.send(own).await?.id(), id, "who puts in may follow");
        for (job, action) in [(&id, "cancel"), (&id, "retry"), (&local, "cancel")] {
            let path = format!("/v1/jobs/{job}/{action}");
            let request = post(&producer, &path, &json!({ "reason": "r", "by": "somebody" }));
            let answer = producer.send(request.bearer_auth(&ops)).await?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        }
        let discard = json!({ "reason": "none of use", "all": true, "by": "somebody" });
        let discard = post(&producer, "/v1/dead-letters/discards", &discard).bearer_auth(&ops);
        assert_eq!(producer.send(discard).await?.status, StatusCode::OK);
        revoke(fleet, "shop").await?.said(0, "is revoked");

        let trail = |job: &str| {
            format!("SELECT concat_ws(' ', kind, actor) AS value FROM job_events WHERE job_id = '{job}' \
                     AND kind IN ('created', 'canceled', 'retried') ORDER BY id")
        };
        let lines = async |query: &str| {
            let lines = values(&fleet.database.url, query).await?;
            anyhow::Ok(lines.into_iter().flatten().collect::<Vec<_>>())
        };
        assert_eq!(lines(&trail(&id)).await?, ["created shop", "canceled ops", "retried ops"]);
        assert_eq!(lines(&trail(&local)).await?, ["created intake", "canceled ops"]);
        let operators = "SELECT concat_ws(' ', actor, action, subject, reason) AS value FROM operator_events ORDER BY id";
        assert_eq!(
            lines(operators).await?,
            [
                "ann token_created token/shop test",
                "ann token_created token/ops test",
                "ops dead_letters_discarded dead_letters none of use",
                "ann token_revoked token/shop test",
            ]
        );
        producer.stop().await
    })
    .await
}

/// The minute may turn at any moment, so what is seen within one is looked for until it is seen.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_wrong_tokens_is_not_listened_to_for_a_while() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let (ann, bob) = (
            token(fleet, "ann", "read").await?,
            token(fleet, "bob", "read").await?,
        );
        let from = |client: &str, token: &str| {
            jobs(&producer)
                .header("X-Forwarded-For", client)
                .bearer_auth(token)
        };
        assert_eq!(
            producer.send(from("192.0.2.1", &ann)).await?.status,
            StatusCode::OK
        );
        let wrong = format!("gf_{}", "0".repeat(64));
        eventually(DEADLINE, async || {
            let mut refused = None;
            for _ in 0..100 {
                let answer = producer.send(from("192.0.2.1", &wrong)).await?;
                if answer.status == StatusCode::TOO_MANY_REQUESTS {
                    refused = Some(answer);
                    break;
                }
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            }
            let answer = refused.context("a hundred wrong tokens were looked up")?;
            let seconds: u64 = answer.headers[RETRY_AFTER].to_str()?.parse()?;
            assert!((1..=60).contains(&seconds), "{seconds}");
            assert_eq!(
                answer.json["type"],
                "urn:ghostfleet:problem:too-many-failures"
            );
            let of = async |client: &str, token: &str| {
                anyhow::Ok(producer.send(from(client, token)).await?.status.as_u16())
            };
            let seen = [
                of("192.0.2.1", &bob).await?,
                of("192.0.2.1", &ann).await?,
                of("192.0.2.2", &wrong).await?,
            ];
            anyhow::ensure!(seen == [429, 200, 401], "{seen:?}");
            Ok(())
        })
        .await?;
        assert_eq!(
            producer.send(from("192.0.2.2", &bob)).await?.status,
            StatusCode::OK
        );
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_listed_and_revoked_by_command() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let run = async |args: &str| {
            let args: Vec<_> = args.split(' ').collect();
            command::producer(&fleet.environment, &args).await
        };
        let made = run("tokens create ci --role submit --reason r --by ann --expires-in 1h --json")
            .await?
            .json(0);
        assert_eq!(
            (&made["name"], &made["role"]),
            (&json!("ci"), &json!("submit"))
        );
        let ci = made["token"].as_str().context("no token")?.to_owned();
        assert!(ci.starts_with("gf_") && ci.len() == 67, "{ci}");
        run("tokens create ci --role read --reason r")
            .await?
            .said(1, "there is or was a token `ci`");
        run("tokens create bob --role root --reason r")
            .await?
            .said(2, "submit, read, operate, admin");
        run("tokens create -b --role read --reason r")
            .await?
            .said(2, "-b");
        run("tokens create a/b --role read --reason r")
            .await?
            .said(2, "letters, digits");
        run("tokens create bob --role read")
            .await?
            .said(2, "--reason");
        run("tokens create bob --role read --reason r --expires-in 0s")
            .await?
            .said(2, "at most ten years");
        revoke(fleet, "bob")
            .await?
            .said(3, "there is no token `bob`");

        let producer = Producer::start(fleet, &fleet.environment).await?;
        let ask = || {
            producer
                .request(Method::GET, "/session")
                .header(AUTHORIZATION, format!("Bearer {ci}"))
        };
        let listed = async || {
            let listed = run("tokens list --json").await?.json(0);
            anyhow::Ok(listed["tokens"][0].clone())
        };
        assert!(listed().await?["last_used_at"].is_null());
        assert_eq!(producer.send(ask()).await?.json["name"], "ci");
        let first = listed().await?;
        assert!(first["last_used_at"].is_string(), "{first}");
        assert_eq!(
            (&first["state"], &first["created_by"]),
            (&json!("live"), &json!("ann"))
        );
        let written = "SELECT xmin::text AS value FROM access_tokens";
        let before = value(&fleet.database.url, written).await?;
        producer.send(ask()).await?;
        assert_eq!(
            value(&fleet.database.url, written).await?,
            before,
            "written at most once a minute"
        );
        let earlier = "UPDATE access_tokens SET last_used_at = now() - interval '2 minutes'";
        execute(&fleet.database.url, earlier).await?;
        let before = value(&fleet.database.url, written).await?;
        producer.send(ask()).await?;
        assert_ne!(value(&fleet.database.url, written).await?, before);

        execute(
            &fleet.database.url,
            "UPDATE access_tokens SET expires_at = now()",
        )
        .await?;
        producer.refused(ask(), 401, "wrong-token").await?;
        assert_eq!(listed().await?["state"], "expired");
        revoke(fleet, "ci").await?.said(0, "`ci` is revoked");
        revoke(fleet, "ci").await?.said(0, "was revoked before");
        assert_eq!(listed().await?["state"], "revoked");
        run("tokens list").await?.said(0, "revoked");
        run("tokens create ci --role read --reason r")
            .await?
            .said(1, "take another name");
        producer.stop().await
    })
    .await
}
