//! Who looks at the console, and what they may see.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Console, api::Calls, problem::Problem, sessions::LoggedIn};
use crate::{
    access::{self, Rule},
    http::port::Client,
    model::TopicFilter,
};

/// The cookie that holds the number of a session.
pub(super) const COOKIE: &str = "trunkline_session";

/// Who looks at the console: an extension of each request for a page. Cheap to clone.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) calls: Calls,
    /// Who it is; `None` if the broker does not authenticate.
    pub(super) name: Option<Arc<str>>,
    /// What each form that changes something must send.
    pub(super) csrf: Arc<str>,
    /// The topics that it may know of; `None` if they are all topics.
    known: Option<Arc<TopicFilter>>,
}

impl Visitor {
    /// Whether it may know of a topic.
    pub(super) fn knows(&self, topic: &str) -> bool {
        self.known.as_ref().is_none_or(|known| {
            known.names.iter().any(|name| name == topic)
                || known.prefixes.iter().any(|prefix| topic.starts_with(prefix))
        })
    }
}

/// Finds out who asks for a page. Whoever has to prove that, and does not, is asked for a token.
pub(super) async fn admit(
    Shared(console): Shared<Arc<Console>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(client) = request.extensions().get::<Client>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let number = session_number(request.headers());
    let logged_in = number.as_deref().and_then(|number| console.sessions.find(number));
    let authorization = logged_in.as_ref().map(|it| it.authorization.clone());
    let csrf = logged_in.map_or_else(|| console.csrf.clone(), |LoggedIn { csrf, .. }| csrf.into());
    let proven = {
        let authorization = authorization.iter().map(|header| header.as_bytes());
        let access = &console.api.access;
        access.authenticate(Rule::Authenticated, authorization, client.identity.as_ref()).await
    };
    let caller = match proven {
        Ok(caller) => caller,
        Err(unproven) => {
            // A database that is away says nothing about the token.
            if let access::Error::Unconfirmed = unproven.error {
                return Problem::unavailable(&unproven.error.to_string()).into_response();
            }
            number.iter().for_each(|number| console.sessions.end(number));
            return ask_for_token(&request);
        }
    };
    let access = &console.api.access;
    let known = caller.as_ref().and_then(|caller| access.known_topics(caller));
    let visitor = Visitor {
        calls: Calls::new(console.api.clone(), &client, authorization),
        name: caller.as_ref().map(|caller| caller.name().into()),
        csrf,
        known: known.map(Arc::new),
    };
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Leads to the page where a token is entered, and back from there.
fn ask_for_token(request: &Request) -> Response {
    let target = match *request.method() {
        Method::GET => request.uri().path_and_query().map_or("/", |target| target.as_str()),
        _ => "/",
    };
    let login = format!("/login?next={}", utf8_percent_encode(target, NON_ALPHANUMERIC));
    // A part of a page is not replaced by another page.
    if request.headers().contains_key("hx-request") {
        return (StatusCode::UNAUTHORIZED, [("HX-Redirect", login)]).into_response();
    }
    Redirect::to(&login).into_response()
}

/// The number of the session that a browser's cookie names.
pub(super) fn session_number(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then(|| value.to_owned())
    })
}

/// Refuses a request that changes something and comes from a page of another host.
pub(super) async fn refuse_other_origins(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD)
        || is_of_same_origin(request.headers())
    {
        return next.run(request).await;
    }
    Problem::forbidden("the request comes from a page of another host").into_response()
}

fn is_of_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).and_then(|host| host.parse::<Authority>().ok());
    match text(header::ORIGIN) {
        Some(origin) => {
            let origin = origin.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
            origin.is_some() && origin == host
        }
        None => headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin"),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let entry = |&(name, value): &(&'static str, &str)| {
            (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn only_pages_of_the_same_host_change_anything() {
        let host = ("host", "localhost:8080");
        for (entry, is_allowed) in [
            (("origin", "http://localhost:8080"), true),
            (("origin", "https://localhost:8080"), true),
            (("origin", "http://localhost:8081"), false),
            (("origin", "http://evil.example"), false),
            (("origin", "null"), false),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "same-site"), false),
            (("x-other", "same-origin"), false),
        ] {
            assert_eq!(is_of_same_origin(&headers(&[host, entry])), is_allowed, "{entry:?}");
        }
        assert!(!is_of_same_origin(&headers(&[("origin", "http://localhost:8080")])));
    }

    #[test]
    fn a_session_is_found_among_other_cookies() {
        let number = |cookie| session_number(&headers(&[("cookie", cookie)]));
        assert_eq!(number("a=b; trunkline_session=17; c=d").as_deref(), Some("17"));
        assert_eq!(number("xtrunkline_session=17"), None);
        assert_eq!(session_number(&HeaderMap::new()), None);
    }
}
