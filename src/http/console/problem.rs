//! What went wrong, as a page or a part of one.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::layout;

/// What went wrong, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    title: &'static str,
    text: String,
    /// What to do.
    advice: &'static str,
    /// The field of the request that is wrong, as the API calls it.
    pub(super) field: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, text: &str, advice: &'static str) -> Self {
        Self { status, title, text: sentence(text), advice, field: None }
    }

    /// There is no such page.
    pub(super) fn not_found(text: &str) -> Self {
        let advice = "Check the name, or look it up in the list of topics.";
        Self::new(StatusCode::NOT_FOUND, "Not found", text, advice)
    }

    /// Whoever asks may not do that.
    pub(super) fn forbidden(text: &str) -> Self {
        let advice = "Ask an administrator of the broker for the grant.";
        Self::new(StatusCode::FORBIDDEN, "Not permitted", text, advice)
    }

    /// A form that this broker has not served to this visitor, or not lately.
    pub(super) fn outdated() -> Self {
        let text = "the page is out of date, or was served by another broker";
        let advice = "Reload the page, and try again.";
        Self::new(StatusCode::FORBIDDEN, "The page is out of date", text, advice)
    }

    /// A page of another host sent the request.
    pub(super) fn foreign() -> Self {
        let text = "the request comes from a page of another host";
        Self::new(StatusCode::FORBIDDEN, "Refused", text, "Use the pages of this broker.")
    }

    /// The broker cannot do it.
    pub(super) fn failed(text: &str) -> Self {
        let advice = "The broker's log has the details.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The broker failed", text, advice)
    }

    /// A request that no page sends.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (title, text) = match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                ("Nothing to see here", "this address only takes forms")
            }
            StatusCode::PAYLOAD_TOO_LARGE => ("Too large", "a form may have 4 MiB"),
            StatusCode::REQUEST_TIMEOUT => ("Too slow", "the form did not arrive in time"),
            _ => ("Not a valid address", "a part of the address is not what it should be"),
        };
        Self::new(status, title, text, "Go back to the overview.")
    }

    /// The broker stops.
    fn draining(text: &str) -> Self {
        let advice = "Wait until it is started again, or use another broker.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The broker stops", text, advice)
    }

    /// The database does not answer.
    pub(super) fn unavailable(text: &str) -> Self {
        let advice = "The page works again as soon as the database answers. The broker's log says why \
                      it does not.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer", text, advice)
    }

    /// A value that was entered is wrong.
    pub(super) fn invalid(field: &str, text: &str) -> Self {
        let advice = "Correct the value, and try again.";
        let problem = Self::new(StatusCode::BAD_REQUEST, "Not a valid value", text, advice);
        Self { field: Some(field.to_owned()), ..problem }
    }

    /// The same problem, of another field of a form.
    pub(super) fn at(self, field: Option<String>) -> Self {
        Self { field, ..self }
    }

    /// What went wrong, in words.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// A part of a page in place of what could not be shown.
    pub(super) fn part(&self) -> Markup {
        html! {
            div.notice.is-bad role="alert" {
                h2 { (self.title) }
                p { (self.text) }
                p.muted { (self.advice) }
            }
        }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let text = status.message();
        let info = status.get_details_error_info();
        let mut problem = match status.code() {
            Code::Unavailable if info.is_some_and(|info| info.reason == "DRAINING") => {
                Self::draining(text)
            }
            Code::NotFound => Self::not_found(text),
            Code::PermissionDenied => Self::forbidden(text),
            Code::InvalidArgument | Code::OutOfRange => Self::invalid("", text),
            Code::Unavailable | Code::DeadlineExceeded => Self::unavailable(text),
            Code::Unauthenticated => Self::new(
                StatusCode::UNAUTHORIZED,
                "Not logged in",
                text,
                "Log in again with a valid token.",
            ),
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::new(
                StatusCode::CONFLICT,
                "Not possible now",
                text,
                "Look at the current state, and try again.",
            ),
            Code::ResourceExhausted => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too much",
                text,
                "Wait a moment, or remove what is not needed any more.",
            ),
            _ => Self::failed(text),
        };
        let violated = status.get_details_bad_request();
        problem.field = violated.and_then(|it| Some(it.field_violations.first()?.field.clone()));
        problem
    }
}

/// A problem that answers a request has a page of its own.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content = html! {
            section.card.narrow aria-labelledby="error-title" {
                div.card-body {
                    p.muted { "Error " (self.status.as_u16()) }
                    @if self.status == StatusCode::NOT_FOUND {
                        h1 id="error-title" { (self.text) }
                    } @else {
                        h1 id="error-title" { (self.title) }
                        p { (self.text) }
                    }
                    p.muted { (self.advice) }
                    div.row { a.button.button-main href="" { "Try again" } }
                }
            }
        };
        (self.status, layout::bare(self.title, &content)).into_response()
    }
}

/// A text of the API as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{}{}{end}", first.to_uppercase(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_sentences() {
        for (text, expected) in
            [("topic a does not exist", "Topic a does not exist."), ("Done.", "Done."), ("", "")]
        {
            assert_eq!(sentence(text), expected);
        }
    }

    #[test]
    fn each_kind_of_error_has_a_status_of_its_own() {
        for (code, status) in [
            (Code::NotFound, 404),
            (Code::PermissionDenied, 403),
            (Code::InvalidArgument, 400),
            (Code::Unavailable, 503),
            (Code::Unauthenticated, 401),
            (Code::AlreadyExists, 409),
            (Code::ResourceExhausted, 429),
            (Code::Internal, 500),
        ] {
            assert_eq!(Problem::from(Status::new(code, "x")).status, status);
        }
    }
}
