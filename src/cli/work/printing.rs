//! Prints messages, and acknowledges those that have arrived.

use std::{collections::VecDeque, io, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{signals::Signals, working::Working};
use crate::{
    cli::{failure::Failure, format::FormatArgs, printer::Printer},
    client::{Job, Message, Verdict, WorkerBuilder},
};

/// How many messages may be printed without having arrived.
pub(super) const AT_A_TIME: usize = 1_000;

/// A message to print.
struct ToPrint {
    message: Message,
    /// Told when it has arrived. If this is dropped, the message is given back.
    arrived: oneshot::Sender<()>,
}

/// What is printed, and has not arrived.
pub(super) struct Printing {
    printer: Printer,
    topic: String,
    format: FormatArgs,
    /// In the order in which they were printed.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// How many messages have arrived.
    arrived: u64,
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
                Err(_) => Verdict::retry_after(Duration::ZERO),
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
        let (printer, waiting) = (Printer::open()?, VecDeque::new());
        Ok(Self { printer, topic, format, waiting, arrived: 0 })
    }

    /// Prints what comes, until that fails.
    async fn print_all(&mut self, messages: &mut mpsc::Receiver<ToPrint>) -> Failure {
        let mut received = Vec::new();
        loop {
            tokio::select! {
                count = messages.recv_many(&mut received, AT_A_TIME) => {
                    if count == 0 {
                        // The worker ends.
                        return std::future::pending().await;
                    }
                    if let Err(error) = self.print(received.drain(..)) {
                        return error.into();
                    }
                }
                () = self.printer.next_check() => {
                    self.printer.arrived();
                    self.acknowledge();
                }
                () = self.printer.reader_gone() => {
                    return io::Error::from(io::ErrorKind::BrokenPipe).into();
                }
            }
        }
    }

    fn print(&mut self, received: impl Iterator<Item = ToPrint>) -> io::Result<()> {
        let (messages, arrived): (Vec<Message>, Vec<oneshot::Sender<()>>) =
            received.map(|ToPrint { message, arrived }| (message, arrived)).unzip();
        self.waiting.extend(arrived);
        let printed = self.printer.print(&self.topic, messages, &self.format);
        self.printer.arrived();
        self.acknowledge();
        printed
    }

    /// Acknowledges the messages that have arrived.
    fn acknowledge(&mut self) {
        while self.arrived < self.printer.arrived_messages()
            && let Some(arrived) = self.waiting.pop_front()
        {
            // Nobody waits for it if the worker has ended.
            let _ = arrived.send(());
            self.arrived += 1;
        }
    }

    /// Waits for the reader of a pipe a little, and gives back what has not arrived.
    async fn finish(&mut self) {
        self.printer.finish().await;
        self.acknowledge();
        self.waiting.clear();
    }
}
