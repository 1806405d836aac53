//! What all pages have in common.

use std::time::SystemTime;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{assets, visitor::Visitor};

/// htmx adds no styles and runs no text as code, which the pages' policy would refuse anyway.
const HTMX_CONFIG: &str = r#"{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,"historyCacheSize":0}"#;

/// A place in the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Topics,
}

/// A whole page.
pub(super) fn page(visitor: &Visitor, place: Place, title: &str, content: &Markup) -> Markup {
    let nav = [(Place::Overview, "/", "Overview"), (Place::Topics, "/topics", "Topics")];
    let nav = html! {
        nav aria-label="Main" {
            ul {
                @for (of, target, text) in nav {
                    li {
                        a href=(target) aria-current=[(of == place).then_some("page")] { (text) }
                    }
                }
            }
        }
    };
    let end = html! {
        @if let Some(name) = &visitor.name {
            span { "Logged in as " strong { (name) } }
            @if visitor.has_session { form method="post" action="/logout" {
                input type="hidden" name="csrf" value=(visitor.csrf);
                button.button.button-small type="submit" { "Log out" }
            } }
        }
    };
    document(title, &nav, &end, content)
}

/// A page of somebody who is not known, or of something that went wrong.
pub(super) fn bare(title: &str, content: &Markup) -> Markup {
    let nav = html! { nav aria-label="Main" { ul { li { a href="/" { "Overview" } } } } };
    document(title, &nav, &html! {}, content)
}

fn document(title: &str, nav: &Markup, end: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-now=(humantime::format_rfc3339_millis(SystemTime::now())) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="htmx-config" content=(HTMX_CONFIG);
                title { (title) " · Trunkline" }
                link rel="icon" href=(assets::url("favicon.svg")) type="image/svg+xml";
                link rel="stylesheet" href=(assets::url("style.css"));
                // Without `defer`: it sets the theme before anything is drawn.
                script src=(assets::url("console.js")) {}
                script src=(assets::url("htmx.min.js")) defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header.top {
                    div.top-in {
                        a.brand href="/" { (mark()) "Trunkline" }
                        (nav)
                        div.top-end {
                            (end)
                            button.button.button-small type="button" data-theme-toggle hidden {
                                span.theme-word { "Theme:" } " " span data-theme-name { "system" }
                            }
                        }
                    }
                }
                p.banner id="banner" role="alert" hidden {}
                main id="main" tabindex="-1" { (content) }
                footer.bottom {
                    span { "Trunkline " (env!("CARGO_PKG_VERSION")) }
                    span.search-hint { kbd { "/" } " searches" }
                }
                p.visually-hidden id="announcer" role="status" {}
            }
        }
    }
}

/// The mark: a line, and what branches off it.
fn mark() -> Markup {
    PreEscaped(include_str!("assets/favicon.svg").to_owned())
}

/// The heading of a page, below the way that leads to it.
pub(super) fn heading(crumbs: &[(&str, String)], title: &str, actions: &Markup) -> Markup {
    html! {
        @if !crumbs.is_empty() {
            nav.crumbs aria-label="Breadcrumb" {
                ol { @for (text, target) in crumbs { li { a href=(target) { (text) } } } }
            }
        }
        div.head {
            div.head-text { h1 { (title) } }
            div.actions { (actions) }
        }
    }
}

/// Why a value of a field is wrong.
pub(super) fn field_error(id: &str, problem: Option<&str>) -> Markup {
    html! {
        @if let Some(problem) = problem { p.field-error id=(format!("{id}-error")) { (problem) } }
    }
}

/// What is shown in place of a list that is empty: what to type next.
pub(super) fn empty(title: &str, text: &str, command: &str) -> Markup {
    html! {
        div.empty {
            h2 { (title) }
            p.muted { (text) }
            (self::command(command))
        }
    }
}

/// A command to type, with a button that copies it.
pub(super) fn command(command: &str) -> Markup {
    html! {
        div.command {
            pre { code { (command) } }
            button.button.button-small type="button" data-copy=(command) { "Copy" }
        }
    }
}
