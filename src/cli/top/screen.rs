//! The screen of `trunkline top`.

use std::time::SystemTime;

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Modifier, Style, Stylize as _},
    text::{Line, Text},
    widgets::{Cell, Paragraph, Row, Table},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    super::{escape::printable, failure::Failure},
    print::problem_line,
    rows::{self, CONSUMER_COLUMNS, TOPIC_COLUMNS, std_duration},
    wanted::{ConsumersBy, TopicsBy, Wanted},
};
use crate::proto::{GetOverviewResponse, problem::Severity};

/// How many problems are shown.
const MAX_PROBLEMS: usize = 3;

const KEYS: &str = "q quit  / search  t sort topics  c sort consumers  p pause";

/// What is shown, and what keys have changed of it.
pub(super) struct Screen {
    url: String,
    pub(super) wanted: Wanted,
    pub(super) is_paused: bool,
    /// Whether the text to look for is being typed.
    pub(super) is_searching: bool,
    overview: Option<GetOverviewResponse>,
    /// Why there was no answer to the last question.
    failure: Option<String>,
}

impl Screen {
    pub(super) fn new(url: &str, wanted: Wanted) -> Self {
        let url = printable(url).into_owned();
        Self { url, wanted, is_paused: false, is_searching: false, overview: None, failure: None }
    }

    /// Shows an answer, or why there is none. Fails if asking again would not help.
    pub(super) fn show(
        &mut self,
        answer: Result<GetOverviewResponse, Failure>,
    ) -> Result<(), Failure> {
        match answer {
            Ok(overview) => (self.overview, self.failure) = (Some(overview), None),
            Err(failure) if failure.is_unavailable() => {
                self.failure = Some(failure.message().to_owned());
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let header = self.header(frame.area().width.into());
        let height = rows_of(header.height());
        let (topics, consumers) =
            self.overview.as_ref().map_or((0, 0), |it| (it.topics.len(), it.consumers.len()));
        // Each list has a header, and a line below it.
        let room = frame.area().height.saturating_sub(height + 1);
        let (topics, consumers) = share(room, rows_of(topics + 2), rows_of(consumers + 2));
        let [top, middle, bottom, _, footer] = Layout::vertical([
            Constraint::Length(height),
            Constraint::Length(topics),
            Constraint::Length(consumers),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(header), top);
        if let Some(overview) = &self.overview {
            self.draw_topics(frame, middle, overview);
            self.draw_consumers(frame, bottom, overview);
        }
        frame.render_widget(Paragraph::new(self.footer()), footer);
    }

    fn header(&self, width: usize) -> Text<'static> {
        let mut lines = Vec::new();
        match &self.overview {
            None if self.failure.is_none() => {
                lines.push(Line::from(format!("asking {}", self.url)))
            }
            None => lines.push(Line::from(self.url.clone())),
            Some(overview) => {
                let broker = overview.broker.clone().unwrap_or_default();
                let uptime = rows::duration(std_duration(broker.uptime));
                lines.push(Line::from(format!(
                    "{}  Trunkline {}, up {uptime}, {} of {} streams",
                    self.url,
                    printable(&broker.version),
                    broker.streams,
                    broker.max_streams,
                )));
                lines.push(Line::from(rows::summary(overview)));
                for problem in overview.problems.iter().take(MAX_PROBLEMS) {
                    let text = problem_line(problem);
                    lines.extend(wrapped(&printable(&text), width).into_iter().map(|line| {
                        let line = Line::from(line);
                        match problem.severity() {
                            Severity::Error => line.red().bold(),
                            _ => line.yellow(),
                        }
                    }));
                }
                if let more @ 1.. = overview.problems.len().saturating_sub(MAX_PROBLEMS) {
                    lines.push(Line::from(format!("and {more} more")).yellow());
                }
                if overview.problems.is_empty() {
                    lines.push(Line::from("All is well").green());
                }
            }
        }
        if let Some(failure) = &self.failure {
            let what = if self.overview.is_some() { "; what is shown is old" } else { "" };
            let again = if self.is_paused { "" } else { "; asking again" };
            let text = format!("{}{what}{again}", printable(failure));
            lines.extend(wrapped(&text, width).into_iter().map(|it| Line::from(it).red().bold()));
        }
        Text::from(lines)
    }

    fn footer(&self) -> Line<'static> {
        let contains = printable(&self.wanted.contains).into_owned();
        if self.is_searching {
            return Line::from(format!("/{contains}_   Enter keeps it, Esc clears it")).bold();
        }
        let mut text = KEYS.to_owned();
        if !contains.is_empty() {
            text = format!("{text}  Esc clears /{contains}");
        }
        if self.is_paused {
            text = format!("PAUSED  {text}");
        }
        Line::from(text).dim()
    }

    fn draw_topics(&self, frame: &mut Frame<'_>, area: Rect, overview: &GetOverviewResponse) {
        let now = SystemTime::now();
        let sorted = match self.wanted.topics_by {
            TopicsBy::Name => 0,
            TopicsBy::Rate => 1,
            TopicsBy::Head => 2,
            TopicsBy::Size => 3,
            TopicsBy::Published => 4,
        };
        let rows = overview.topics.iter().map(|it| rows::topic(it, now).to_vec());
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(11),
            Constraint::Length(12),
            Constraint::Length(10),
            Constraint::Length(11),
        ];
        draw_table(frame, area, &TOPIC_COLUMNS, sorted, 1, rows, widths);
    }

    fn draw_consumers(&self, frame: &mut Frame<'_>, area: Rect, overview: &GetOverviewResponse) {
        let sorted = match self.wanted.consumers_by {
            ConsumersBy::Name => 0,
            ConsumersBy::Lag => 2,
            ConsumersBy::Behind => 3,
            ConsumersBy::Rate => 4,
            ConsumersBy::Idle => 5,
        };
        let rows = overview.consumers.iter().map(|it| rows::consumer(it).to_vec());
        let widths = [
            Constraint::Fill(2),
            Constraint::Fill(2),
            Constraint::Length(12),
            Constraint::Length(11),
            Constraint::Length(11),
            Constraint::Length(11),
            Constraint::Fill(1),
        ];
        draw_table(frame, area, &CONSUMER_COLUMNS, sorted, 2, rows, widths);
    }
}

/// Text in lines of at most a width, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = &lines[lines.len() - 1];
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(String::new());
        }
        let last = lines.len() - 1;
        if !lines[last].is_empty() {
            lines[last].push(' ');
        }
        lines[last].push_str(word);
    }
    lines
}

fn rows_of(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Shares rows between two lists that want so many: a short list leaves what it does not need to the
/// other one.
fn share(room: u16, first: u16, second: u16) -> (u16, u16) {
    let first = first.min(room.saturating_sub(second).max(room / 2));
    (first, second.min(room - first))
}

/// Draws a list. Its first columns, so many as `names`, are text, and so is a column for holders; the
/// others are numbers.
fn draw_table<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[&'static str; N],
    sorted: usize,
    names: usize,
    rows: impl Iterator<Item = Vec<String>>,
    widths: [Constraint; N],
) {
    let cell = |index: usize, text: String| {
        let is_text = index < names || columns[index] == "HOLDER";
        let alignment = if is_text { Alignment::Left } else { Alignment::Right };
        Cell::from(Text::from(printable(&text).into_owned()).alignment(alignment))
    };
    let header = columns.iter().enumerate().map(|(index, name)| {
        let name = if index == sorted { format!("{name}*") } else { (*name).to_owned() };
        cell(index, name)
    });
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::REVERSED));
    let rows = rows
        .map(|row| Row::new(row.into_iter().enumerate().map(|(index, text)| cell(index, text))));
    let table = Table::new(rows, widths).header(header).column_spacing(2);
    frame.render_widget(table, area);
}

#[cfg(test)]
pub(super) mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::proto::{BrokerState, ConsumerActivity, Problem, TopicActivity};

    /// A screen before the first answer.
    pub(crate) fn screen() -> Screen {
        let wanted = Wanted {
            contains: String::new(),
            topics_by: TopicsBy::default(),
            consumers_by: ConsumersBy::default(),
            limit: 200,
        };
        Screen::new("http://127.0.0.1:50051", wanted)
    }

    fn overview() -> GetOverviewResponse {
        GetOverviewResponse {
            broker: Some(BrokerState {
                version: "1.2.3".to_owned(),
                max_streams: 100,
                ..Default::default()
            }),
            topic_count: 2,
            consumer_count: 1,
            consumers_behind: 1,
            topics: vec![
                TopicActivity { topic: "orders".to_owned(), head: 7, ..Default::default() },
                TopicActivity { topic: "a\u{1b}[2Jb".to_owned(), ..Default::default() },
            ],
            consumers: vec![ConsumerActivity {
                topic: "orders".to_owned(),
                consumer_id: "billing".to_owned(),
                lag: 4_711,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn topics_and_consumers_are_shown() {
        let mut screen = screen();
        assert_eq!(drawn(&screen, 100, 20)[0], "asking http://127.0.0.1:50051");
        screen.show(Ok(overview())).unwrap();
        let lines = drawn(&screen, 100, 20);
        assert!(lines[0].ends_with("Trunkline 1.2.3, up 0s, 0 of 100 streams"), "{lines:#?}");
        assert_eq!(lines[2], "All is well");
        assert!(lines[3].contains("MESSAGES/S*"), "{lines:#?}");
        assert!(lines[4].starts_with("orders "), "{lines:#?}");
        assert!(lines[5].starts_with("a\\u{1b}[2Jb"), "{lines:#?}");
        let consumers = lines.iter().find(|line| line.contains("billing")).unwrap();
        assert!(consumers.contains("4711"), "{lines:#?}");
        assert_eq!(lines[19], KEYS);
    }

    #[test]
    fn a_short_list_leaves_its_room_to_the_other() {
        for (room, first, second, shares) in [
            (20, 3, 4, (3, 4)),
            (20, 30, 4, (16, 4)),
            (20, 3, 30, (3, 17)),
            (20, 30, 30, (10, 10)),
            (0, 3, 3, (0, 0)),
            (1, 3, 3, (0, 1)),
        ] {
            assert_eq!(share(room, first, second), shares, "{room} {first} {second}");
        }
    }

    #[test]
    fn a_small_terminal_shows_what_it_has_room_for() {
        let mut screen = screen();
        screen.show(Ok(overview())).unwrap();
        for (width, height) in [(1, 1), (20, 4), (300, 8)] {
            assert_eq!(drawn(&screen, width, height).len(), height as usize);
        }
    }

    #[test]
    fn a_broker_that_goes_away_leaves_what_was_shown() {
        let mut screen = screen();
        screen.show(Err(Failure::unavailable("no answer"))).unwrap();
        assert!(drawn(&screen, 100, 20)[1].starts_with("no answer; asking again"));
        screen.show(Ok(overview())).unwrap();
        screen.show(Err(Failure::unavailable("no answer"))).unwrap();
        let lines = drawn(&screen, 100, 20);
        assert!(lines[3].starts_with("no answer; what is shown is old"), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("orders ")));
        screen.show(Ok(overview())).unwrap();
        assert!(!drawn(&screen, 100, 20).iter().any(|line| line.contains("no answer")));
        assert!(screen.show(Err(Failure::refused("not permitted"))).is_err());
    }

    #[test]
    fn problems_are_shown_with_what_to_do() {
        let mut screen = screen();
        let problem = Problem {
            severity: Severity::Error.into(),
            description: "1 consumer has a reader and messages left, and has not moved".to_owned(),
            advice: "Look into the reader's log.".to_owned(),
            topic: "orders".to_owned(),
            consumer_id: "billing".to_owned(),
        };
        let problems = vec![problem; 4];
        screen.show(Ok(GetOverviewResponse { problems, ..overview() })).unwrap();
        let lines = drawn(&screen, 80, 20);
        let first = "1 consumer has a reader and messages left, and has not moved (such as";
        assert_eq!(lines[2..4], [first, "orders/billing). Look into the reader's log."]);
        assert_eq!(lines[8], "and 1 more");
    }
}
