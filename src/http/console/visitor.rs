//! Who looks at the console, and what they may see.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};

use super::{Console, api::Calls, events, path, problem::Problem, sessions::LoggedIn};
use crate::{
    access::{self, Caller, Rule},
    http::port::Client,
    model::TopicName,
};

/// Who looks at the console: an extension of each request for a page. Cheap to clone.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) calls: Calls,
    /// Who it is; `None` if the broker does not authenticate.
    pub(super) name: Option<Arc<str>>,
    /// What each form that changes something must send.
    pub(super) csrf: Arc<str>,
    /// Whether it can log out.
    pub(super) has_session: bool,
    caller: Caller,
}

impl Visitor {
    /// Whether it may know of a topic.
    pub(super) fn knows(&self, topic: &TopicName) -> bool {
        self.caller.knows(topic.as_str())
    }

    /// Whether it may see the consumers of a topic, of whomever they are.
    pub(super) fn sees_consumers(&self, topic: &TopicName) -> bool {
        self.caller.sees_registrations(topic.as_str())
    }

    /// Whether there may be topics that it does not know of.
    pub(super) fn is_restricted(&self) -> bool {
        self.caller.is_restricted()
    }

    /// Whether it is an administrator.
    pub(super) fn is_administrator(&self) -> bool {
        self.caller.is_administrator()
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
    let number = session_number(request.headers(), &console.cookie);
    let logged_in = number.as_deref().and_then(|number| console.sessions.find(number));
    let authorization = logged_in.as_ref().map(|it| it.authorization.clone());
    let has_session = logged_in.is_some();
    let csrf = logged_in.map(|LoggedIn { csrf, .. }| csrf.into());
    let proven = {
        let authorization = authorization.iter().map(|header| header.as_bytes());
        let access = &console.api.access;
        access.authenticate(Rule::Authenticated, authorization, client.identity.as_ref()).await
    };
    let caller = match proven {
        Ok(caller) => caller.unwrap_or(Caller::Everyone),
        Err(unproven) => {
            // A database that is away says nothing about the token.
            if let access::Error::Unconfirmed = unproven.error {
                return Problem::unavailable(&unproven.error.to_string()).into_response();
            }
            number.iter().for_each(|number| console.sessions.end(number));
            return ask_for_token(&request);
        }
    };
    let name = caller.principal().map(|principal| principal.as_str().into());
    let visitor = Visitor {
        calls: Calls::new(console.api.clone(), &client, authorization),
        csrf: csrf.unwrap_or_else(|| console.csrf_of(caller.name())),
        name,
        has_session,
        caller,
    };
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Leads to the page where a token is entered, and back from there.
fn ask_for_token(request: &Request) -> Response {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_part = request.headers().contains_key("hx-request");
    let target = if is_part {
        // The page that the part is of.
        let page = header("hx-current-url").and_then(|url| url.parse::<Uri>().ok());
        let target = page.as_ref().and_then(|url| url.path_and_query());
        target.map_or("/", |target| target.as_str()).to_owned()
    } else if *request.method() == Method::GET {
        request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned()
    } else {
        "/".to_owned()
    };
    let login = format!("/login?next={}", path::encode(&target));
    if is_part {
        return (StatusCode::UNAUTHORIZED, [("HX-Redirect", login)]).into_response();
    }
    if header(header::ACCEPT.as_str()) == Some("text/event-stream") {
        // A browser would ask again for ever.
        return events::ended("You are logged out. Reload the page to log in.");
    }
    Redirect::to(&login).into_response()
}

/// The number of the session that a browser's cookie names.
pub(super) fn session_number(headers: &HeaderMap, name: &str) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| {
        let (of, value) = pair.trim().split_once('=')?;
        (of == name).then(|| value.to_owned())
    })
}

/// Refuses a request that changes something and comes from a page of another host.
pub(super) async fn refuse_other_origins(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD)
        || is_of_same_origin(request.headers())
    {
        return next.run(request).await;
    }
    Problem::foreign().into_response()
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
        let number = |cookie| session_number(&headers(&[("cookie", cookie)]), "session");
        assert_eq!(number("a=b; session=17; c=d").as_deref(), Some("17"));
        assert_eq!(number("xsession=17"), None);
        assert_eq!(session_number(&HeaderMap::new(), "session"), None);
    }
}
