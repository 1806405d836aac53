//! Bodies that arrive in every cut, with and without room in the budget.

use std::convert::Infallible;

use futures::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};

use super::*;
use crate::{
    broker::Budget,
    model::{Allowance, Limit},
};

const EACH: usize = 100_000;

fn request(bytes: usize) -> Vec<u8> {
    let mut request = vec![0];
    request.extend((bytes as u32).to_be_bytes());
    request.resize(PREFIX_BYTES + bytes, b'x');
    request
}

/// A body of some frames that, if it is open, never ends.
fn body(frames: Vec<Vec<u8>>, open: bool) -> Body {
    let frames = stream::iter(frames)
        .map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from(frame))))
        .chain(stream::once(std::future::pending()).take(usize::from(open)));
    Body::new(StreamBody::new(frames))
}

fn arriving(body: Body, share: Share, stall_limit: Duration) -> (ArrivingBody, Arrivals) {
    let arrivals = Arrivals::default();
    let backlog = Backlog::default();
    let terms =
        Terms { share, max_request: 1_000, is_stream: true, stall_limit, backlog, pace: None };
    (ArrivingBody::new(body, terms, Some(arrivals.clone())), arrivals)
}

const LONG: Duration = Duration::from_secs(3_600);

/// The next data that passes at once; `None` if it waits or the body has ended.
fn next(body: &mut ArrivingBody) -> Option<Result<Bytes, Status>> {
    let frame = body.frame().now_or_never()??;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn every_request_is_charged_once_wherever_the_frames_are_cut() {
    let lengths = [0, 1, 7, 300, 2, 1_000];
    let whole: Vec<u8> = lengths.iter().flat_map(|&bytes| request(bytes)).collect();
    for size in 1..40 {
        let share = Budget::new(4 * EACH, EACH).new_share();
        let frames = whole.chunks(size).map(<[u8]>::to_vec).collect();
        let (mut body, arrivals) = arriving(body(frames, false), share.clone(), LONG);
        let mut passed = Vec::new();
        while let Some(data) = next(&mut body) {
            passed.extend(data.unwrap());
        }
        assert_eq!(passed, whole);
        let total: usize = lengths.iter().map(|&bytes| charge(bytes)).sum();
        assert!(share.try_hold(EACH - total).is_some());
        assert!(share.try_hold(EACH - total + 1).is_none());
        for bytes in lengths {
            assert_eq!(arrivals.decoded(usize::MAX), charge(bytes));
        }
        drop((body, arrivals));
        assert!(share.try_hold(EACH).is_some());
    }
}

#[tokio::test]
async fn a_request_waits_for_room_while_those_before_it_are_passed_on() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let all_but = |bytes| share.try_hold(EACH - bytes).unwrap();
    let held = all_but(charge(100));
    let (first, others) = (request(100), [request(200), request(3)].concat());
    let frames = vec![[first.clone(), others.clone()].concat()];
    let (mut body, arrivals) = arriving(body(frames, false), share.clone(), LONG);
    assert_eq!(next(&mut body).unwrap().unwrap(), first);
    assert!(next(&mut body).is_none(), "the others wait");
    drop(held);
    assert_eq!(next(&mut body).unwrap().unwrap(), others);
    assert!(next(&mut body).is_none());
    drop(arrivals);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_before_it_arrives() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let frame = [request(10), request(1_001)[..PREFIX_BYTES].to_vec()].concat();
    let (mut body, _arrivals) = arriving(body(vec![frame], true), share.clone(), LONG);
    assert_eq!(next(&mut body).unwrap().unwrap(), request(10));
    let status = next(&mut body).unwrap().unwrap_err();
    assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
}

#[tokio::test]
async fn a_body_that_stops_within_a_request_ends_and_one_that_pauses_between_two_does_not() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let limit = Duration::from_millis(20);
    let half = request(10)[..8].to_vec();
    let (mut stalled, _arrivals) = arriving(body(vec![half], true), share.clone(), limit);
    next(&mut stalled).unwrap().unwrap();
    let status = stalled.frame().await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "REQUEST_STALLED");

    let (mut idle, _arrivals) = arriving(body(vec![request(10)], true), share.clone(), limit);
    next(&mut idle).unwrap().unwrap();
    // Longer than the limit, as the other body has shown that its time passes.
    let waited = tokio::time::timeout(10 * limit, idle.frame()).await;
    assert!(waited.is_err(), "a stream may be idle between requests");
}

#[tokio::test]
async fn a_request_that_cannot_arrive_ends_the_waits_that_may_be_why() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let backlog = Backlog::default();
    let open = |frame: Vec<u8>| {
        let terms = Terms {
            share: share.clone(),
            max_request: EACH,
            is_stream: true,
            stall_limit: LONG,
            backlog: backlog.clone(),
            pace: None,
        };
        ArrivingBody::new(body(vec![frame], true), terms, None)
    };
    let mut arriving = open(request(EACH)[..100].to_vec());
    next(&mut arriving).unwrap().unwrap();
    // Each may have sent two of the sixteen megabytes that a connection may have sent.
    let mut waiting: Vec<_> = (0..6).map(|_| open(request(1))).collect();
    for waiting in &mut waiting[..5] {
        assert!(next(waiting).is_none());
    }
    backlog.starves();
    assert!(next(&mut waiting[0]).is_none(), "there is room for the other one to arrive");
    assert!(next(&mut waiting[5]).is_none());
    // Fails to arrive for a second.
    let arrives = arriving.frame();
    let refused = waiting[0].frame();
    tokio::select! {
        _ = arrives => panic!("nothing more was sent"),
        refused = refused => {
            assert_eq!(reason(&refused.unwrap().unwrap_err()), "TOO_MANY_PUBLISHES");
        }
    }
    drop(waiting);
    assert!(next(&mut arriving).is_none(), "it may still arrive");
}

#[tokio::test]
async fn a_client_that_sends_a_byte_now_and_then_holds_its_room_no_longer_than_a_silent_one() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let trickle = stream::iter(request(1_000)).then(async |byte| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![byte])))
    });
    let trickle = Body::new(StreamBody::new(Box::pin(trickle)));
    let (mut body, arrivals) = arriving(trickle, share.clone(), Duration::from_millis(200));
    let status = loop {
        match body.frame().await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&status), "REQUEST_STALLED");
    drop((body, arrivals));
    assert!(share.try_hold(EACH).is_some());
}

#[tokio::test]
async fn a_request_waits_for_the_rates_of_its_caller_and_holds_no_room_meanwhile() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let pace = Pace::of(&Allowance::default().with(Limit::MessagesPerSecond, 1));
    let frames = vec![[request(10), request(10)].concat()];
    let (mut body, arrivals) = arriving(body(frames, true), share.clone(), LONG);
    body.terms.pace = Some(pace.clone());
    assert_eq!(next(&mut body).unwrap().unwrap().len(), PREFIX_BYTES + 10, "one at a time");
    pace.charge(1_000, 0);
    arrivals.refused();
    assert!(next(&mut body).is_none());
    assert!(share.try_hold(EACH).is_some());
    pace.lift();
    assert_eq!(next(&mut body).unwrap().unwrap().len(), PREFIX_BYTES + 10);
    assert!(share.try_hold(EACH).is_none());
}

#[tokio::test]
async fn a_request_that_waits_for_the_rates_goes_on_waiting_while_others_starve() {
    let share = Budget::new(4 * EACH, EACH).new_share();
    let pace = Pace::of(&Allowance::default().with(Limit::MessagesPerSecond, 1));
    pace.charge(1_000, 0);
    let backlog = Backlog::default();
    let mut paced: Vec<_> = (0..8)
        .map(|_| {
            let frames = vec![request(10)];
            let (mut body, _) = arriving(body(frames, true), share.clone(), LONG);
            body.terms.pace = Some(pace.clone());
            body.terms.backlog = backlog.clone();
            body
        })
        .collect();
    assert!(paced.iter_mut().all(|body| next(body).is_none()));
    backlog.starves();
    assert!(paced.iter_mut().all(|body| next(body).is_none()));
    pace.lift();
    assert!(paced.iter_mut().all(|body| next(body).unwrap().is_ok()));
}
