//! The operator's page: `/` and its parts under `/assets`, which are built into the binary.
//!
//! It holds no data: what it shows it reads from `/v1` with the session of whoever looks, so anybody may have it. Must not make a
//! page from data here, nor name a file that is not in [`FILES`] or an address outside of this service.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::problem::{Kind, Problem};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const INDEX: &str = include_str!("../../page/index.html");

/// A script of the page by its name.
macro_rules! script {
    ($name:literal) => {
        ($name, SCRIPT, include_str!(concat!("../../page/", $name)))
    };
}

/// What the page is made of: name, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", CSS, include_str!("../../page/style.css")),
    script!("act.js"),
    script!("api.js"),
    script!("app.js"),
    script!("audits.js"),
    script!("bulk.js"),
    script!("chart.js"),
    script!("costs.js"),
    script!("dead_letters.js"),
    script!("dom.js"),
    script!("find.js"),
    script!("history.js"),
    script!("job.js"),
    script!("jobs.js"),
    script!("live.js"),
    script!("moves.js"),
    script!("operations.js"),
    script!("overview.js"),
    script!("paid.js"),
    script!("proof.js"),
    script!("selection.js"),
    script!("sign_in.js"),
    script!("strip.js"),
    script!("timeline.js"),
    script!("trail.js"),
    script!("unknowns.js"),
    script!("vendors.js"),
    script!("why.js"),
    script!("words.js"),
    script!("workers.js"),
];

/// Scripts and styles of this service alone, none in the markup; nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The operator's page
#[utoipa::path(get, path = "/", tag = "page", operation_id = "page",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 304, description = "It is what `If-None-Match` names")))]
pub(super) async fn index(headers: HeaderMap) -> Response {
    served(&headers, HTML, INDEX)
}

/// A part of the page
#[utoipa::path(get, path = "/assets/{file}", tag = "page", operation_id = "page_asset",
    params(("file" = String, Path, description = "Its name")),
    responses((status = 200, description = "The part", content((String = "text/javascript"), (String = "text/css"))),
        (status = 304, description = "It is what `If-None-Match` names"),
        (status = 404, description = "The page has no such part")))]
pub(super) async fn asset(
    file: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = file
        .ok()
        .and_then(|Path(name)| FILES.iter().find(|file| file.0 == name));
    match found {
        Some((_, content_type, content)) => Ok(served(&headers, content_type, content)),
        None => Err(Problem::new(
            Kind::FileNotFound,
            "the page asks for it no more: load it again",
        )),
    }
}

/// Browsers ask each time whether what they have is still right: a new producer has a new page at once.
fn served(headers: &HeaderMap, content_type: &'static str, content: &'static str) -> Response {
    const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
    let tag = format!("\"{}\"", &hex::encode(Sha256::digest(content))[..32]);
    let is_known = |known: &HeaderValue| known.to_str().is_ok_and(|known| known.contains(&tag));
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(is_known);
    let lines = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, lines).into_response();
    }
    (lines, [(header::CONTENT_TYPE, content_type)], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file names: `src`, `href` and `url()` of this service, and what modules import.
    fn named(content: &str) -> Vec<String> {
        let mut names = Vec::new();
        for (before, after) in [
            ("\"/assets/", '"'),
            ("from \"./", '"'),
            ("import(\"./", '"'),
            ("url(/assets/", ')'),
        ] {
            for part in content.split(before).skip(1) {
                names.push(part.split(after).next().unwrap().to_owned());
            }
        }
        names
    }

    #[test]
    fn everything_that_the_page_names_is_in_the_table_and_the_other_way_around() {
        let contents = FILES.iter().map(|file| file.2).chain([INDEX]);
        let names: std::collections::BTreeSet<_> = contents.flat_map(named).collect();
        let table: std::collections::BTreeSet<_> =
            FILES.iter().map(|file| file.0.to_owned()).collect();
        assert_eq!(names, table);
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let is_code = name.ends_with(".js") || name.ends_with(".css");
            assert!(!is_code || table.contains(&name), "{name} is not served");
        }
    }

    /// Texts of the API are never markup, the policy would refuse what stands in the markup, and nothing comes from elsewhere.
    #[test]
    fn the_page_makes_no_markup_from_texts_and_needs_nothing_from_elsewhere() {
        for (name, content) in FILES
            .iter()
            .map(|file| (file.0, file.2))
            .chain([("index.html", INDEX)])
        {
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
                // Times have one form, in UTC.
                "toLocaleTimeString",
                "toLocaleDateString",
                "getTimezoneOffset",
            ] {
                assert!(!content.contains(never), "{name}: {never}");
            }
            let addresses = content.match_indices("http").map(|(at, _)| &content[at..]);
            for address in
                addresses.filter(|text| text.starts_with("http://") || text.starts_with("https://"))
            {
                assert!(
                    address.starts_with("http://www.w3.org/2000/svg"),
                    "{name}: {address:.60}"
                );
            }
            assert!(content.lines().count() < 400, "{name} is too long");
        }
        assert!(!INDEX.contains("<style") && !INDEX.contains("<script>"));
    }

    #[tokio::test]
    async fn a_part_is_served_with_its_policy_and_only_when_it_is_new() {
        let first = asset(Ok(Path("app.js".to_owned())), HeaderMap::new()).await;
        let first = first.ok().unwrap();
        let line = |name: HeaderName| first.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(line(header::CONTENT_TYPE), SCRIPT);
        assert_eq!(line(header::CONTENT_SECURITY_POLICY), POLICY);
        assert_eq!(line(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(line(header::CACHE_CONTROL), "no-cache");
        let mut known = HeaderMap::new();
        known.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let second = asset(Ok(Path("app.js".to_owned())), known.clone()).await;
        assert_eq!(second.ok().unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(index(known).await.status(), StatusCode::OK);
        let none = asset(Ok(Path("../mod.rs".to_owned())), HeaderMap::new()).await;
        assert_eq!(
            none.err().unwrap().into_response().status(),
            StatusCode::NOT_FOUND
        );
    }
}
