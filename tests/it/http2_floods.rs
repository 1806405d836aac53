//! Frames that cost a client nothing: they neither fill the broker's memory nor harm other clients.

use trunkline::{client::Client, proto};

use crate::support::{RawHttp2, TestDatabase, Trunkline, http2, soon};

const PUBLISH_STREAM: &str = "trunkline.v1.ProducerService/PublishStream";

const MIB: usize = 1024 * 1024;

/// How much more memory a broker may have after a flood of several times as much.
const MAX_GROWTH: usize = 24 * MIB;

struct Flooded {
    process: Trunkline,
    endpoint: String,
    _database: TestDatabase,
}

impl Flooded {
    async fn start() -> Self {
        let database = TestDatabase::create().await;
        let arguments = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
        let (process, endpoint) = Trunkline::serve(&arguments).await;
        Self { process, endpoint, _database: database }
    }

    /// The memory that the broker uses, in bytes.
    fn memory(&self) -> usize {
        let status = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    async fn serves_others(&self) {
        let client = Client::connect(&self.endpoint).await.unwrap();
        let request = proto::ListTopicsRequest::default();
        soon("an answer", client.topics().list_topics(request)).await.unwrap();
    }

    fn assert_grew_little(&self, before: usize) {
        let growth = self.memory().saturating_sub(before);
        assert!(growth < MAX_GROWTH, "the broker took {growth} more bytes");
    }
}

/// Answers that nobody reads stop the broker from reading, rather than gather in its memory.
#[tokio::test]
async fn pings_and_settings_whose_answers_nobody_reads_take_no_memory() {
    let broker = Flooded::start().await;
    for (kind, payload) in [(http2::PING, &[0; 8][..]), (http2::SETTINGS, &[])] {
        broker.serves_others().await;
        let before = broker.memory();
        let mut connection = RawHttp2::connect(&broker.endpoint).await;
        assert!(connection.flush().await);
        (0..10_000).for_each(|_| connection.frame(kind, 0, 0, payload));
        connection.flood_unread(64 * MIB).await;
        broker.assert_grew_little(before);
        broker.serves_others().await;
    }
}

#[tokio::test]
async fn endless_metadata_ends_its_connection() {
    let broker = Flooded::start().await;
    for part in [&[][..], &[0; 16_384]] {
        let before = broker.memory();
        let mut connection = RawHttp2::connect(&broker.endpoint).await;
        // Metadata that does not end, as no frame has the flag END_HEADERS.
        connection.frame(http2::HEADERS, 0, 1, &[]);
        let ended = async {
            while connection.flush().await {
                (0..100).for_each(|_| connection.frame(http2::CONTINUATION, 0, 1, part));
            }
        };
        soon("the end of the connection", ended).await;
        broker.assert_grew_little(before);
        broker.serves_others().await;
    }
}

#[tokio::test]
async fn empty_data_frames_take_no_memory() {
    let broker = Flooded::start().await;
    broker.serves_others().await;
    let before = broker.memory();
    let mut connection = RawHttp2::connect(&broker.endpoint).await;
    let stream = connection.begin(PUBLISH_STREAM, &[]);
    assert!(connection.flush().await);
    for _ in 0..20 {
        (0..50_000).for_each(|_| connection.frame(http2::DATA, 0, stream, &[]));
        if !connection.flush().await {
            break;
        }
    }
    broker.assert_grew_little(before);
    broker.serves_others().await;
}
