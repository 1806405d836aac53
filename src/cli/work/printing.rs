//! Prints messages, and acknowledges those that have arrived.
//!
//! A pipe that is full, or a terminal that is held, holds a write up for as long as it likes. So a thread of
//! its own writes, and signals are heard meanwhile.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{signals::Signals, working::Working};
use crate::{
    cli::{failure::Failure, format::FormatArgs, printer::Printer},
    client::{Job, Message, Verdict, WorkerBuilder},
};

/// How many messages may be printed without having arrived.
pub(super) const AT_A_TIME: usize = 1_000;

/// How many messages are written together: as many are printed again if their write is given up.
const TOGETHER: usize = 100;

/// How long to wait at the end for a write that is under way.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// A message to print.
struct ToPrint {
    message: Message,
    /// Told when it has arrived. If this is dropped, the message is given back.
    arrived: oneshot::Sender<()>,
}

/// What is printed, and has not arrived.
pub(super) struct Printing {
    /// `None` while it writes.
    printer: Option<Printer>,
    writing: Option<JoinHandle<Written>>,
    form: Arc<Form>,
    /// In the order in which they were printed.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// How many messages have arrived.
    arrived: u64,
}

/// How messages are printed.
struct Form {
    topic: String,
    format: FormatArgs,
}

/// What became of a write.
struct Written {
    printer: Printer,
    outcome: io::Result<()>,
}

/// Prints messages until the worker ends, standard output fails, or a signal comes. What has not arrived
/// by then is given back.
pub(super) async fn run(
    worker: WorkerBuilder,
    mut printing: Printing,
    mut signals: Signals,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    // Has room for all handlers that run at once.
    let (to_print, mut messages) = mpsc::channel(AT_A_TIME);
    // Handlers are called in the order of the messages, so they are printed in this order.
    let handler = move |job: Job| {
        let (arrived, arrival) = oneshot::channel();
        // Fails when nothing is printed any more.
        let _ = to_print.try_send(ToPrint { message: job.into_message(), arrived });
        async move {
            match arrival.await {
                Ok(()) => Verdict::Acknowledge,
                // Nobody has seen it.
                Err(_) => Verdict::Release,
            }
        }
    };
    let mut working = Working::start(worker, handler, &stop).await?;
    let ended = tokio::select! {
        worked = working.ended() => return worked,
        failed = printing.print_all(&mut messages) => Err(failed),
        signal = signals.next() => signal.outcome(),
    };
    stop.cancel();
    drop(messages);
    let finishing = async {
        printing.finish().await;
        working.ended().await
    };
    tokio::select! {
        worked = finishing => ended.and(worked),
        _ = signals.next() => Err(Failure::interrupted()),
    }
}

impl Printing {
    pub(super) fn open(topic: String, format: FormatArgs) -> io::Result<Self> {
        Ok(Self {
            printer: Some(Printer::open()?),
            writing: None,
            form: Arc::new(Form { topic, format }),
            waiting: VecDeque::new(),
            arrived: 0,
        })
    }

    /// Prints what comes, until that fails. A write that is under way goes on if this is dropped.
    async fn print_all(&mut self, messages: &mut mpsc::Receiver<ToPrint>) -> Failure {
        let mut received = Vec::new();
        loop {
            if let Err(failed) = self.written().await {
                return failed;
            }
            let Some(printer) = &self.printer else {
                return Failure::refused("write to standard output");
            };
            tokio::select! {
                count = messages.recv_many(&mut received, TOGETHER) => {
                    if count == 0 {
                        // The worker ends.
                        return std::future::pending().await;
                    }
                    self.begin_to_write(received.drain(..));
                }
                () = printer.next_check() => self.acknowledge(),
                () = printer.reader_gone() => {
                    return io::Error::from(io::ErrorKind::BrokenPipe).into();
                }
            }
        }
    }

    fn begin_to_write(&mut self, received: impl Iterator<Item = ToPrint>) {
        let (messages, arrived): (Vec<Message>, Vec<oneshot::Sender<()>>) =
            received.map(|ToPrint { message, arrived }| (message, arrived)).unzip();
        self.waiting.extend(arrived);
        let Some(mut printer) = self.printer.take() else { return };
        let form = self.form.clone();
        self.writing = Some(spawn_blocking(move || {
            let outcome = printer.print(&form.topic, messages, &form.format);
            Written { printer, outcome }
        }));
    }

    /// Waits for the write that is under way, if there is one.
    async fn written(&mut self) -> Result<(), Failure> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = writing.await;
        self.writing = None;
        let Written { printer, outcome } = written
            .map_err(|failed| Failure::refused(format!("write to standard output: {failed}")))?;
        self.printer = Some(printer);
        self.acknowledge();
        Ok(outcome?)
    }

    /// Acknowledges the messages that have arrived.
    fn acknowledge(&mut self) {
        let Some(printer) = &mut self.printer else { return };
        printer.arrived();
        self.acknowledge_arrived();
    }

    fn acknowledge_arrived(&mut self) {
        let arrived = self.printer.as_ref().map_or(0, Printer::arrived_messages);
        while self.arrived < arrived
            && let Some(arrived) = self.waiting.pop_front()
        {
            // Nobody waits for it if the worker has ended.
            let _ = arrived.send(());
            self.arrived += 1;
        }
    }

    /// Waits for the reader of a pipe a little, and gives back what has not arrived.
    async fn finish(&mut self) {
        // A write that failed has told why before, or the worker ends anyway.
        let _ = timeout(LAST_WRITE, self.written()).await;
        if let Some(printer) = &mut self.printer {
            printer.finish().await;
            self.acknowledge_arrived();
        }
        self.waiting.clear();
    }
}
