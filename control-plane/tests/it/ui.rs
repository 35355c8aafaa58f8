//! The pages: login, what they show, what they change, and what they refuse.

use reqwest::{Response, StatusCode, header};

use crate::support::{Plane, document, site_body};

/// A browser without scripts: keeps the cookie, follows no redirect by itself.
struct Browser<'a> {
    plane: &'a Plane,
    http: reqwest::Client,
    cookie: String,
}

impl<'a> Browser<'a> {
    fn new(plane: &'a Plane) -> Self {
        let policy = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().redirect(policy).build().unwrap();
        Self { plane, http, cookie: String::new() }
    }

    async fn log_in(plane: &'a Plane, token: &str) -> Self {
        let mut browser = Self::new(plane);
        let response = browser.post("/login", &[("token", token)]).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        cookie.split(';').next().unwrap().clone_into(&mut browser.cookie);
        assert!(!browser.cookie.contains(token));
        browser
    }

    async fn get(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.plane.base);
        self.http.get(url).header(header::COOKIE, &self.cookie).send().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = response.text().await.unwrap();
        assert!(!text.contains("<script") && !text.contains("style="), "{path}");
        text
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        self.http
            .post(format!("{}{path}", self.plane.base))
            .header(header::COOKIE, &self.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.join("&"))
            .send()
            .await
            .unwrap()
    }

    async fn csrf(&self) -> String {
        let page = self.page("/").await;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }
}

fn escape(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, octet| {
        if octet.is_ascii_alphanumeric() || octet == b'_' {
            text.push(char::from(octet));
        } else {
            text.push_str(&format!("%{octet:02X}"));
        }
        text
    })
}

#[tokio::test]
async fn pages_need_a_login_and_show_what_the_api_shows() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let stranger = Browser::new(&plane);
    for path in ["/", "/calls", "/trunks", "/config", "/sites", "/soc2", "/audit"] {
        let response = stranger.get(path).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(response.headers()[header::LOCATION], "/login");
    }
    assert_eq!(stranger.get("/style.css").await.status(), StatusCode::OK);
    assert!(stranger.page("/login").await.contains("API token"));
    let wrong = stranger.post("/login", &[("token", "rvl_0_0")]).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);

    let mut body = site_body("<b>Detroit</b> & Sons", 10, "+13135551000");
    body["city"] = "\"><script>alert(1)</script>".into();
    let (status, answer) = plane.post("/api/e911/multi-site/config", body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let admin = Browser::log_in(&plane, &plane.admin).await;
    assert!(admin.page("/").await.contains("Config version 2 is in force."));
    let sites = admin.page("/sites").await;
    assert!(sites.contains("Detroit") && !sites.contains("<b>"), "what people typed is escaped");
    assert!(admin.page("/config").await.contains("first-admin"));
    assert!(admin.page("/soc2").await.contains("PI1.2"));
    assert!(admin.page("/audit").await.contains("e911.site.created"));
    for path in ["/calls", "/trunks"] {
        admin.page(path).await;
    }

    // The login ends, at once, with the log-out.
    let csrf = admin.csrf().await;
    let out = admin.post("/logout", &[("csrf", &csrf)]).await;
    assert_eq!(out.status(), StatusCode::SEE_OTHER);
    assert_eq!(admin.get("/").await.headers()[header::LOCATION], "/login");
    plane.stop().await;
}

#[tokio::test]
async fn forms_change_things_under_the_same_rules_as_the_api() {
    let plane = Plane::start(&document("edge-1", "")).await;
    let admin = Browser::log_in(&plane, &plane.admin).await;
    let csrf = admin.csrf().await;
    let site = |csrf: &str| {
        [
            ("csrf", csrf.to_owned()),
            ("site_name", "Detroit".to_owned()),
            ("ip_range_start", "192.168.10.1".to_owned()),
            ("ip_range_end", "192.168.10.254".to_owned()),
            ("emergency_trunk", "detroit_emergency".to_owned()),
            ("elin", "+13135551000".to_owned()),
            ("realm", String::new()),
        ]
    };
    let send = async |browser: &Browser<'_>, fields: &[(&str, String)]| {
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        browser.post("/sites", &fields).await
    };
    // A form without the token of our page, or from another site, changes nothing.
    assert_eq!(send(&admin, &site("0000")).await.status(), StatusCode::FORBIDDEN);
    let foreign = plane
        .http
        .post(format!("{}/login", plane.base))
        .header(header::ORIGIN, "https://evil.example")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(format!("token={}", plane.admin))
        .send()
        .await
        .unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    assert_eq!(plane.get("/api/config").await["version"], 1);

    let done = send(&admin, &site(&csrf)).await;
    assert!(done.text().await.unwrap().contains("Site 1 is in force."));
    let again = send(&admin, &site(&csrf)).await;
    assert!(again.text().await.unwrap().contains("belongs to another site"));
    let fields = [
        ("csrf", csrf.as_str()),
        ("control_id", "A1.2"),
        ("revision", "1"),
        ("implementation_status", "implemented"),
        ("test_results", "Passed - restore drill"),
    ];
    let saved = admin.post("/soc2", &fields).await.text().await.unwrap();
    assert!(saved.contains("Control A1.2 was saved."), "{saved}");
    let stale = admin.post("/soc2", &fields).await.text().await.unwrap();
    assert!(stale.contains("was changed since it was read"));
    let back = admin.post("/config/rollback", &[("csrf", &csrf), ("version", "1")]).await;
    assert!(back.text().await.unwrap().contains("Version 1 is in force."));
    let gone = admin.post("/sites/delete", &[("csrf", &csrf), ("site_id", "1")]).await;
    assert!(gone.text().await.unwrap().contains("not found"));

    // A viewer sees, and changes nothing.
    let token = plane.token("viewer").await;
    let viewer = Browser::log_in(&plane, &token).await;
    assert!(!viewer.page("/sites").await.contains("Add a site"));
    let csrf = viewer.csrf().await;
    assert_eq!(send(&viewer, &site(&csrf)).await.status(), StatusCode::FORBIDDEN);
    let refused = viewer.post("/config/rollback", &[("csrf", &csrf), ("version", "2")]).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(viewer.get("/audit").await.status(), StatusCode::SEE_OTHER);

    // A revoked token ends its logins.
    let id = token.strip_prefix("rvl_").unwrap().split('_').next().unwrap().to_owned();
    plane.call(reqwest::Method::DELETE, &format!("/api/tokens/{id}"), None).await;
    assert_eq!(viewer.get("/").await.headers()[header::LOCATION], "/login");
    plane.stop().await;
}
