//! GhostCut's requests and how its pages are read.

use serde_json::{Value, json};
use shared::domain::answer::SubmitAnswer;
use shared::domain::classify::ErrorClass;

use crate::server::{Reply, Request, Server};
use crate::{Clients, LONG};

const STATUS: &str = "POST /v-w-c/gateway/ve/work/status";
const LIST: &str = "POST /v-w-c/gateway/ve/work/list";

fn content(items: Vec<Value>) -> Reply {
    Reply::Json(
        200,
        json!({"code": 1000, "msg": "success", "body": {"content": items}}),
    )
}

fn item(id: u64) -> Value {
    json!({"id": id, "idProject": id + 1000, "processStatus": 0})
}

#[tokio::test]
async fn a_submit_sends_the_stored_bytes_signed() {
    let server = Server::start(|_| {
        Reply::Json(200, json!({"code": 1000, "body": {"idProject": 230_953_994, "dataList": [{"id": 488_026_661}]}}))
    })
    .await;
    // A vector of the signature: any change of the bytes would change it.
    let body = r#"{"names":["测试"],"urls":["https://media.example.com/a.mp4"]}"#;
    let answer = Clients::of(server.address)
        .ghostcut
        .submit(body.as_bytes(), LONG)
        .await;
    let accepted = SubmitAnswer::Accepted {
        task_id: "488026661".to_owned(),
        project_id: Some("230953994".to_owned()),
    };
    assert_eq!(answer, accepted);
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, "POST /v-w-c/gateway/ve/work/free");
    assert_eq!(request.body, body.as_bytes());
    assert_eq!(request.headers["appkey"], "ak-hunter2");
    assert_eq!(
        request.headers["appsign"],
        "d13daeabd5beb2145989bde80d2fbeb2"
    );
    assert_eq!(request.headers["content-type"], "application/json");
    assert!(request.headers["user-agent"].starts_with("ghostfleet/"));
}

#[tokio::test]
async fn a_redo_names_the_work() {
    let server = Server::start(|_| Reply::Json(200, json!({"code": 1000, "body": true}))).await;
    let answer = Clients::of(server.address)
        .ghostcut
        .redo("488026661", LONG)
        .await;
    assert_eq!(
        answer,
        SubmitAnswer::Accepted {
            task_id: "488026661".to_owned(),
            project_id: None
        }
    );
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, "POST /v-w-c/gateway/ve/work/video/redo");
    assert_eq!(request.json(), json!({"id": 488_026_661}));
}

#[tokio::test]
async fn status_matches_by_id_whatever_the_order_and_the_rest() {
    // Reversed, one missing, one nobody asked for.
    let server = Server::start(|_| content(vec![item(99), item(3), item(1)])).await;
    let clients = Clients::of(server.address);
    let ids: Vec<String> = ["1", "2", "3"].map(str::to_owned).to_vec();
    let works = clients.ghostcut.status(&ids).await.unwrap();
    assert_eq!(
        works
            .iter()
            .map(|work| work.task_id.as_str())
            .collect::<Vec<_>>(),
        ["3", "1"]
    );
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, STATUS);
    assert_eq!(
        request.json(),
        json!({"idWorks": ["1", "2", "3"], "page": 0, "pageSize": 100})
    );
    // Without ids the vendor would list the whole account.
    assert!(clients.ghostcut.status(&[]).await.unwrap().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_call_names_at_most_100_works() {
    let server = Server::start(|request: &Request| {
        let ids = request.json()["idWorks"].as_array().unwrap().clone();
        content(
            ids.iter()
                .map(|id| item(id.as_str().unwrap().parse().unwrap()))
                .collect(),
        )
    })
    .await;
    let ids: Vec<String> = (1..=250).map(|id| id.to_string()).collect();
    let works = Clients::of(server.address)
        .ghostcut
        .status(&ids)
        .await
        .unwrap();
    assert_eq!(works.len(), 250);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn imported_jobs_are_asked_for_by_project() {
    let server = Server::start(|_| content(vec![item(1), item(2), json!({"id": 3})])).await;
    let works = Clients::of(server.address)
        .ghostcut
        .status_by_projects(&["1002".to_owned()])
        .await
        .unwrap();
    assert_eq!(
        works
            .iter()
            .map(|work| work.task_id.as_str())
            .collect::<Vec<_>>(),
        ["2"]
    );
    assert_eq!(
        server.requests()[0].json(),
        json!({"idProjects": [1002], "page": 0, "pageSize": 2000})
    );
}

/// Answers list requests with `size` works per page out of `total`, newest first.
fn paged(request: &Request, total: u64, size: u64) -> Reply {
    let page = request.json()["page"].as_u64().unwrap();
    content(
        (page * size..total.min((page + 1) * size))
            .map(|i| item(total - i))
            .collect(),
    )
}

#[tokio::test]
async fn a_list_is_read_to_its_end_even_where_the_vendor_caps_the_page() {
    let server = Server::start(|request| paged(request, 250, 100)).await;
    let works = Clients::of(server.address)
        .ghostcut
        .list(1_760_000_000_000, 1_760_003_600_000)
        .await
        .unwrap();
    assert_eq!(works.len(), 250);
    let window = json!({"page": 0, "pageSize": 200, "createTimeGreaterThanOrEqualTo": 1_760_000_000_000_i64,
        "createTimeLessThan": 1_760_003_600_000_i64});
    assert_eq!(server.requests()[0].json(), window);
    assert_eq!(server.requests()[0].line, LIST);
}

#[tokio::test]
async fn a_list_that_ignores_the_page_ends() {
    let server = Server::start(|_| content(vec![item(2), item(1)])).await;
    let works = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap();
    assert_eq!(works.len(), 2);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_list_whose_pages_count_from_1_is_read_to_its_end() {
    let server = Server::start(|request| {
        let page = request.json()["page"].as_u64().unwrap().max(1);
        let items = (1..=250).rev().skip((page as usize - 1) * 100).take(100);
        content(items.map(item).collect())
    })
    .await;
    let works = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap();
    assert_eq!(works.len(), 250);
}

/// What comes after the page that is shown again and again is not known: nothing may be proved absent by it.
#[tokio::test]
async fn a_list_that_shows_a_full_page_again_is_an_error() {
    let server = Server::start(|request| match request.line.as_str() {
        LIST => content((1..=100).map(item).collect()),
        _ => Reply::Json(200, json!({"code": 9999, "msg": "System error"})),
    })
    .await;
    let error = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "nor by status");
    let server = Server::start(|_| content((1..=100).map(item).collect())).await;
    let error = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

#[tokio::test]
async fn a_list_with_an_item_that_has_no_id_is_an_error() {
    let server = Server::start(|_| content(vec![item(1), json!({"id": null})])).await;
    let error = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

#[tokio::test]
async fn one_id_that_is_refused_does_not_keep_the_others_from_being_known() {
    let server = Server::start(|request| {
        let ids = request.json()["idWorks"].clone();
        match ids.as_array().unwrap().iter().any(|id| id == "rubbish") {
            true => Reply::Json(200, json!({"code": 2002, "msg": "bad parameter"})),
            false => content(vec![item(1), item(2)]),
        }
    })
    .await;
    let ids = ["1", "rubbish", "2"].map(str::to_owned);
    let client = Clients::of(server.address).ghostcut;
    let works = client.status(&ids).await.unwrap();
    assert!(works.iter().any(|work| work.task_id == "1"));
    assert!(works.iter().any(|work| work.task_id == "2"));
    let error = client.status(&ids[1..2]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

#[tokio::test]
async fn a_list_that_never_ends_is_an_error_and_not_a_result() {
    let server = Server::start(|request| {
        let page = request.json()["page"].as_u64().unwrap();
        content(vec![item(page + 1)])
    })
    .await;
    let error = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

#[tokio::test]
async fn a_list_that_fails_midway_is_not_half_a_result() {
    let server = Server::start(|request| match request.json()["page"].as_u64() {
        Some(0) => content(vec![item(1)]),
        _ => Reply::Json(200, json!({"code": 9999, "msg": "System error"})),
    })
    .await;
    let error = Clients::of(server.address)
        .ghostcut
        .list(0, 1)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_missing_list_is_replaced_by_status() {
    let missing = || {
        [
            Reply::Json(404, json!("no such path")),
            Reply::Json(200, json!({"code": 9999})),
        ]
    };
    for which in 0..missing().len() {
        let server = Server::start(move |request| match request.line.as_str() {
            LIST => missing().into_iter().nth(which).unwrap(),
            _ => paged(request, 3, 200),
        })
        .await;
        let works = Clients::of(server.address)
            .ghostcut
            .list(5, 9)
            .await
            .unwrap();
        assert_eq!(works.len(), 3);
        let request = &server.requests()[1];
        assert_eq!(request.line, STATUS);
        assert_eq!(request.json()["createTimeGreaterThanOrEqualTo"], 5);
        assert!(request.json().get("idWorks").is_none());
    }
}

#[tokio::test]
async fn a_list_refused_for_our_key_or_our_rate_is_not_asked_for_twice() {
    for (code, class) in [
        (2004, ErrorClass::Misconfigured),
        (3006, ErrorClass::Throttled { retry_after: None }),
    ] {
        let server = Server::start(move |_| Reply::Json(200, json!({"code": code}))).await;
        let error = Clients::of(server.address)
            .ghostcut
            .list(5, 9)
            .await
            .unwrap_err();
        assert_eq!(error.class(), class);
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn the_balance_is_summed() {
    let server = Server::start(|_| {
        let assets = json!([{"id": 1, "pointBalance": 651.5}, {"id": 2, "pointBalance": 8.5}]);
        Reply::Json(
            200,
            json!({"code": 1000, "count": 2, "body": {"pointAssets": assets}}),
        )
    })
    .await;
    assert_eq!(
        Clients::of(server.address)
            .ghostcut
            .balance()
            .await
            .unwrap(),
        660.0
    );
    assert_eq!(
        server.requests()[0].line,
        "POST /v-w-c/gateway/ve/point/query"
    );
    assert_eq!(
        server.requests()[0].body,
        br#"{"notZero":true,"isValid":true}"#
    );
}
