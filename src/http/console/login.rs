//! Logs visitors in and out, where the broker authenticates.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension, Form,
    extract::{Query, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};

use super::{Console, api::Calls, form::Sent, layout, problem::Problem, visitor::session_number};
use crate::{http::port::Client, proto::WhoAmIRequest};

pub(super) async fn show(
    Shared(console): Shared<Arc<Console>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    if !console.api.access.is_required() {
        let content = html! {
            section.card.narrow {
                div.card-body {
                    h1 { "Log in" }
                    p { "This broker does not authenticate: everyone may see and do everything." }
                    div.row { a.button.button-main href="/" { "Overview" } }
                }
            }
        };
        return layout::bare("Log in", &content).into_response();
    }
    page(asked.get("next").map_or("/", String::as_str), None).into_response()
}

fn page(next: &str, problem: Option<&str>) -> Markup {
    let content = html! {
        section.card.narrow aria-labelledby="login-title" {
            form.card-body method="post" action="/login" {
                h1 id="login-title" { "Log in" }
                p.muted { "This broker authenticates its clients." }
                input type="hidden" name="next" value=(next);
                div.field {
                    label for="token" { "Token" }
                    input id="token" name="token" type="password" autocomplete="current-password"
                        required aria-invalid=[problem.map(|_| "true")]
                        aria-describedby=(problem.map_or("token-hint", |_| "token-error token-hint"));
                    (layout::field_error("token", problem))
                    p.hint id="token-hint" {
                        "An administrator creates one with " code { "trunkline token create NAME" } "."
                    }
                }
                button.button.button-main type="submit" { "Log in" }
            }
        }
    };
    layout::bare("Log in", &content)
}

/// Begins a session with a token that is valid.
pub(super) async fn log_in(
    Shared(console): Shared<Arc<Console>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    let next = sent.get("next").map(String::as_str).filter(|next| is_local(next)).unwrap_or("/");
    let token = sent.get("token").map(|token| token.trim()).unwrap_or_default();
    let wrong = |text: &str| {
        let page = page(next, Some(text));
        Ok((StatusCode::UNAUTHORIZED, page).into_response())
    };
    let Ok(mut authorization) = HeaderValue::from_str(&format!("Bearer {token}")) else {
        return wrong("This is not a token.");
    };
    authorization.set_sensitive(true);
    let calls = Calls::new(console.api.clone(), &client, Some(authorization.clone()));
    let principal = match calls.access().who_am_i(WhoAmIRequest::default()).await {
        Ok(answer) => answer.into_inner().principal,
        Err(status) if status.code() == tonic::Code::Unauthenticated => {
            return wrong(Problem::from(status).text());
        }
        Err(status) => return Err(status.into()),
    };
    let Some(number) = console.sessions.begin(principal, authorization) else {
        return Err(Problem::failed("the system has no random numbers"));
    };
    // Whoever was logged in before is not any more.
    if let Some(before) = session_number(&headers, &console.cookie) {
        console.sessions.end(&before);
    }
    let cookie = cookie(&console.cookie, &number, console.is_encrypted);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response())
}

/// Ends a session.
pub(super) async fn log_out(
    Shared(console): Shared<Arc<Console>>,
    headers: HeaderMap,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    if let Some(number) = session_number(&headers, &console.cookie)
        && let Some(logged_in) = console.sessions.find(&number)
    {
        if sent.get("csrf") != Some(&logged_in.csrf) {
            return Err(Problem::outdated());
        }
        console.sessions.end(&number);
    }
    let cookie = format!("{}; Max-Age=0", cookie(&console.cookie, "", console.is_encrypted));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

fn cookie(name: &str, number: &str, is_encrypted: bool) -> String {
    let secure = if is_encrypted { "; Secure" } else { "" };
    format!("{name}={number}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

/// Whether an address leads to this broker: a path that no browser takes for another host.
fn is_local(next: &str) -> bool {
    next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\n', '\r', '\t'])
        && next.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_another_host() {
        for (next, expected) in [
            ("/topics?q=a", true),
            ("/", true),
            ("//evil.example", false),
            ("/\\evil.example", false),
            ("https://evil.example", false),
            ("", false),
            ("/a\r\nSet-Cookie: x", false),
        ] {
            assert_eq!(is_local(next), expected, "{next:?}");
        }
    }

    #[test]
    fn a_cookie_is_for_this_host_and_no_script() {
        assert_eq!(cookie("name", "7", true), "name=7; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert!(!cookie("name", "7", false).contains("Secure"));
    }
}
