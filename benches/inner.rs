//! Measures the inner steps of publishing and consuming: decoding a request, adding it to a batch,
//! encoding the batch, and decoding it in the client library.

// The macro makes the group a public function.
#![allow(missing_docs)]

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use trunkline::{
    client::decode_batch,
    grpc::{decode_publish, encode_batch},
    model::{Batch, Draft, Epoch, Offset, ProducerId, ProducerRun, Sequence},
    proto::{self, Bounded, NewMessage, raw},
};

/// The number of messages in a request and in a batch, each of 100 bytes.
const REQUEST_MESSAGES: usize = 1_000;
const BATCH_MESSAGES: usize = 8_000;

fn payload(number: usize) -> Bytes {
    format!("{number:0100}").into()
}

fn request(messages: usize) -> Bytes {
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "shop".to_owned(),
        messages: (0..messages).map(|number| NewMessage::new(payload(number))).collect(),
        sequence: Some(0),
        ..Default::default()
    };
    request.encode_to_vec().into()
}

fn batch() -> Batch {
    let producer = ProducerId::parse("shop").expect("a valid name");
    Batch {
        base: Offset(1_000_000),
        published_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        payloads: (0..BATCH_MESSAGES).map(payload).collect(),
        keys: None,
        headers: None,
        producers: vec![ProducerRun { producer, count: BATCH_MESSAGES }],
        encoded: Default::default(),
    }
}

fn steps(criterion: &mut Criterion) {
    let mut steps = criterion.benchmark_group("inner");
    for messages in [1, REQUEST_MESSAGES] {
        let bytes = request(messages);
        steps.throughput(Throughput::Elements(messages as u64));
        steps.bench_function(format!("decode a request of {messages}"), |bencher| {
            bencher.iter(|| {
                let request = Bounded::<raw::PublishRequest>::decode(black_box(&bytes).clone());
                decode_publish(request.expect("a request")).expect("a valid request")
            });
        });
    }

    let request =
        Bounded::<raw::PublishRequest>::decode(request(REQUEST_MESSAGES)).expect("a request");
    let publish = decode_publish(request).expect("a valid request");
    steps.throughput(Throughput::Elements(BATCH_MESSAGES as u64));
    steps.bench_function(format!("build a batch of {BATCH_MESSAGES}"), |bencher| {
        bencher.iter(|| {
            let mut draft = Draft::default();
            for first in (0..BATCH_MESSAGES).step_by(REQUEST_MESSAGES) {
                let sequence = Some(Sequence(first as i64));
                draft.add(&publish.producer, Epoch(0), sequence, black_box(&publish.messages));
            }
            draft
        });
    });

    let batch = batch();
    steps.bench_function(format!("encode a batch of {BATCH_MESSAGES}"), |bencher| {
        bencher.iter(|| encode_batch(black_box(&batch)));
    });
    let encoded = encode_batch(&batch).bytes;
    steps.bench_function(format!("decode a batch of {BATCH_MESSAGES}"), |bencher| {
        bencher.iter(|| decode_batch(black_box(&encoded), 0).expect("a batch"));
    });
    steps.finish();
}

criterion_group!(inner, steps);
criterion_main!(inner);
