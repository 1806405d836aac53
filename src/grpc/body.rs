//! The body of a call, which arrives no faster than its owner's byte budget allows.
//!
//! The budget is charged for each request when the five bytes with its length have arrived. What
//! follows these bytes is read only once the budget has room, so HTTP/2 flow control holds the client
//! back. A body that stops in the middle of a request ends with an error.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};

use crate::{
    access::Pace,
    broker::{Hold, Share},
    grpc::{
        arrivals::{Arrivals, charge},
        backlog::Backlog,
        status,
    },
};

/// The bytes before each request: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What a body is held to.
pub(super) struct Terms {
    /// What its requests are charged to.
    pub(super) share: Share,
    /// The largest request, in bytes.
    pub(super) max_request: usize,
    /// Whether the client sends any number of requests, and may pause between them.
    pub(super) is_stream: bool,
    /// How long the body may make no progress in the middle of a request, besides the time that what
    /// arrives takes at the slowest rate.
    pub(super) stall_limit: Duration,
    /// The requests of the same connection that wait.
    pub(super) backlog: Backlog,
    /// The rates that hold for the requests of a publish stream, if its caller may have any.
    pub(super) pace: Option<Pace>,
}

/// The rate at which a request must arrive, in bytes a second, once it was waited for longer than the
/// limit.
const SLOWEST: f64 = 8_192.0;

/// After how long without progress other requests are suspected to be the reason.
const STARVED_AFTER: Duration = Duration::from_secs(1);

/// A body whose requests are charged to a budget as they arrive.
pub(super) struct ArrivingBody {
    body: Body,
    terms: Terms,
    /// Where those who decode the requests find what is held for each.
    arrivals: Option<Arrivals>,
    /// What is held for the last request if nobody else has it.
    held: Option<Hold>,
    /// What has arrived and was not passed on yet.
    rest: Bytes,
    /// Where in a request the rest begins.
    place: Place,
    /// Waits for what the next request needs; yields nothing if the wait is ended.
    waiting: Option<Pin<Box<dyn Future<Output = Option<Granted>> + Send>>>,
    /// What was charged for the first request that begins in the rest.
    charged: Option<Hold>,
    stall: Stall,
}

/// A place in a sequence of requests.
#[derive(Clone, Copy, Default)]
struct Place {
    /// The part of a prefix that has arrived.
    prefix: [u8; PREFIX_BYTES],
    arrived: usize,
    /// How many bytes of a request have not arrived.
    missing: usize,
}

/// What was waited for.
enum Granted {
    /// What the next request is charged.
    Room(Hold),
    /// The rates permit the next request.
    Pace,
}

/// What becomes of the bytes that have arrived.
enum Admission {
    /// So many of them are passed on.
    Pass(usize),
    /// They wait until this much is charged.
    Wait(usize),
    /// They wait until the rates permit them, and hold no room meanwhile.
    Pace(Pace),
    /// They begin a request that is too large.
    TooLarge(usize),
}

/// Notices that a body makes no progress.
struct Stall {
    limit: Duration,
    since: Instant,
    /// Set once a request had to be waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ArrivingBody {
    pub(super) fn new(body: Body, terms: Terms, arrivals: Option<Arrivals>) -> Self {
        let stall = Stall { limit: terms.stall_limit, since: Instant::now(), sleep: None };
        Self {
            body,
            terms,
            arrivals,
            held: None,
            rest: Bytes::new(),
            place: Place::default(),
            waiting: None,
            charged: None,
            stall,
        }
    }

    /// Charges for the requests that begin in the rest, for all of them if there is room.
    fn admit(&mut self) -> Admission {
        let (mut place, mut at) = (self.place, 0);
        let (mut first, mut second, mut cut) = (None, None, self.rest.len());
        let (mut requests, mut first_charge, mut total) = (0, 0, 0);
        while let Some((start, bytes)) = place.next(&self.rest, &mut at) {
            if bytes > self.terms.max_request {
                if start == 0 {
                    return Admission::TooLarge(bytes);
                }
                (cut, place) = (start, Place::default());
                break;
            }
            let charge = charge(bytes).min(self.terms.share.most());
            match first {
                None => (first, first_charge) = (Some(start), charge),
                Some(_) => second = second.or(Some(start)),
            }
            requests += 1;
            total += charge;
        }
        let Some(first) = first else { return self.pass(cut, place) };
        if let Some(pace) = self.terms.pace.as_ref().filter(|pace| pace.is_limited()) {
            // With its room, a request has waited for the rates already.
            if self.charged.is_none() && pace.is_used_up() {
                return match first {
                    0 => Admission::Pace(pace.clone()),
                    _ => self.pass(first, Place::default()),
                };
            }
            // One request at a time, as each takes something of the rates.
            if let Some(second) = second {
                (cut, place) = (second, Place::default());
                (requests, total) = (1, first_charge);
            }
        }
        let charged = self.charged.as_ref().map_or(0, Hold::bytes);
        let needs = total.saturating_sub(charged);
        if let Some(mut hold) = self.terms.share.try_hold(needs) {
            if let Some(charged) = self.charged.take() {
                hold.merge(charged);
            }
            self.keep(hold, requests);
            return self.pass(cut, place);
        }
        if let Some(charged) = self.charged.take() {
            self.keep(charged, 1);
            return match second {
                Some(second) => self.pass(second, Place::default()),
                None => self.pass(cut, place),
            };
        }
        match first {
            0 => Admission::Wait(first_charge),
            // The request before it can be decoded meanwhile, which may make the room.
            _ => self.pass(first, Place::default()),
        }
    }

    /// Keeps what is held for the first requests that begin in the rest, until they are decoded.
    fn keep(&mut self, hold: Hold, requests: usize) {
        let Some(arrivals) = &self.arrivals else {
            // Requests that nobody waits for are decoded as soon as they are passed on.
            self.held = Some(hold);
            return;
        };
        let (mut place, mut at, most) = (self.place, 0, self.terms.share.most());
        let charges = std::iter::from_fn(|| {
            place.next(&self.rest, &mut at).map(|(_, bytes)| charge(bytes).min(most))
        });
        arrivals.add(hold, charges.take(requests));
    }

    fn pass(&mut self, bytes: usize, place: Place) -> Admission {
        self.place = place;
        Admission::Pass(bytes)
    }

    /// Whether the client must send more soon.
    fn is_within_request(&self) -> bool {
        !self.terms.is_stream || self.place.arrived > 0 || self.place.missing > 0
    }
}

impl Place {
    /// Moves on to the end of the next prefix in `bytes`, from `at`. Returns where the prefix
    /// begins, 0 if that was before `bytes`, and the length of its request.
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<(usize, usize)> {
        let skipped = self.missing.min(bytes.len() - *at);
        self.missing -= skipped;
        *at += skipped;
        if self.missing > 0 {
            return None;
        }
        let start = *at;
        let arrived = (PREFIX_BYTES - self.arrived).min(bytes.len() - *at);
        self.prefix[self.arrived..self.arrived + arrived]
            .copy_from_slice(&bytes[start..start + arrived]);
        self.arrived += arrived;
        *at += arrived;
        if self.arrived < PREFIX_BYTES {
            return None;
        }
        self.arrived = 0;
        let [_, length @ ..] = self.prefix;
        self.missing = u32::from_be_bytes(length) as usize;
        Some((start, self.missing))
    }
}

impl Stall {
    fn restart(&mut self) {
        if self.sleep.is_some() {
            self.since = Instant::now();
        }
    }

    /// Some bytes of a request arrived. They buy time in proportion, so that a client cannot hold
    /// room by sending a byte now and then.
    fn progress(&mut self, bytes: usize) {
        if self.sleep.is_some() {
            let bought = Duration::from_secs_f64(bytes as f64 / SLOWEST);
            self.since = Instant::now().min(self.since + bought);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, backlog: &Backlog) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| {
            self.since = Instant::now();
            Box::pin(tokio::time::sleep(limit.min(STARVED_AFTER)))
        });
        loop {
            ready!(sleep.as_mut().poll(context));
            let (now, ends) = (Instant::now(), self.since + limit);
            if ends <= now {
                return Poll::Ready(());
            }
            let starved = self.since + STARVED_AFTER;
            if starved <= now {
                backlog.starves();
            }
            sleep.as_mut().reset(starved.max(now + STARVED_AFTER.min(limit)).min(ends));
        }
    }
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(waiting) = &mut this.waiting {
                let granted = ready!(waiting.as_mut().poll(context));
                this.waiting = None;
                match granted {
                    Some(Granted::Room(hold)) => this.charged = Some(hold),
                    Some(Granted::Pace) => {}
                    None => {
                        let status = status::too_many_publishes(this.terms.share.most());
                        return Poll::Ready(Some(Err(status)));
                    }
                }
                this.stall.restart();
            }
            if !this.rest.is_empty() {
                match this.admit() {
                    Admission::Pass(bytes) => {
                        let data = this.rest.split_to(bytes);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Admission::Wait(bytes) => {
                        // A stream may go on with further requests.
                        let unread = if this.terms.is_stream { usize::MAX } else { bytes };
                        let waiting = this.terms.backlog.wait(unread);
                        let room = this.terms.share.clone().hold(bytes);
                        let room = async { Granted::Room(room.await) };
                        this.waiting = Some(Box::pin(waiting.until(room)));
                        continue;
                    }
                    Admission::Pace(pace) => {
                        // Not for room, and so not because of others: nothing ends this wait.
                        this.waiting = Some(Box::pin(async move {
                            pace.permits().await;
                            Some(Granted::Pace)
                        }));
                        continue;
                    }
                    Admission::TooLarge(bytes) => {
                        let status = status::too_large(bytes, this.terms.max_request);
                        return Poll::Ready(Some(Err(status)));
                    }
                }
            }
            if this.terms.is_stream && !this.is_within_request() {
                // All that was passed on is decoded by now, and the next request may be hours away.
                this.held = None;
            }
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => {
                    if this.is_within_request() {
                        ready!(this.stall.poll(context, &this.terms.backlog));
                        return Poll::Ready(Some(Err(status::stalled(this.stall.limit))));
                    }
                    return Poll::Pending;
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    match this.is_within_request() {
                        true => this.stall.progress(data.len()),
                        false => this.stall.restart(),
                    }
                    this.rest = data;
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

#[cfg(test)]
mod tests;
