//! `trunkline work`.

use std::{fs, path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
};

use crate::support::{
    Finished, PRODUCER, TestBroker, Trunkline, soon, until,
    worker::{self, TestWorker, at_once, payloads},
};

/// A broker with messages `m0`, `m1` and so on in the topic `jobs`, and the subscription `pool`.
async fn with_jobs(count: usize) -> (TestBroker, TestWorker) {
    worker::with_jobs(count, at_once()).await
}

/// The command in a folder.
fn work(broker: &TestBroker, folder: &Path, arguments: &[&str]) -> Command {
    let work = ["--endpoint", &broker.endpoint, "work", "jobs", "--subscription", "pool"];
    let mut command = Trunkline::command(&[&work[..], arguments].concat());
    command.current_dir(folder);
    command
}

async fn run(broker: &TestBroker, folder: &TempDir, arguments: &[&str]) -> Finished {
    Trunkline::finish(work(broker, folder.path(), arguments)).await
}

#[tokio::test]
async fn messages_are_printed_in_order_and_acknowledged() {
    let (broker, mut pool) = with_jobs(2_500).await;
    let folder = tempfile::tempdir().unwrap();
    let first = run(&broker, &folder, &["--max", "2", "--json"]).await;
    assert_eq!((first.code(), first.stdout.lines().count()), (0, 2), "{first:?}");
    assert!(first.stdout.contains("\"payload\":\"m1\""), "{first:?}");
    assert_eq!(pool.describe().await.floor, 2);
    let rest = run(&broker, &folder, &["--until-caught-up"]).await;
    assert_eq!((rest.code(), &*rest.stderr), (0, ""), "{rest:?}");
    let mut printed: Vec<usize> =
        rest.stdout.lines().map(|line| line.trim_start_matches('m').parse().unwrap()).collect();
    // What the first run gave back comes first.
    printed.sort_unstable();
    assert_eq!(printed, (2..2_500).collect::<Vec<_>>());
    let described = pool.describe().await;
    assert_eq!((described.floor, described.retried_messages), (2_500, 0));
    let nothing = run(&broker, &folder, &["--until-caught-up", "-n", "5"]).await;
    assert_eq!((nothing.code(), &*nothing.stdout), (0, ""), "{nothing:?}");
}

#[tokio::test]
async fn what_a_pipe_did_not_deliver_is_given_back() {
    let (broker, mut pool) = with_jobs(20_000).await;
    let program = env!("CARGO_BIN_EXE_trunkline");
    let script = "timeout 15 $WORK | head -n 2; echo ${PIPESTATUS[0]}";
    let work = format!("{program} --endpoint {} work jobs --subscription pool", broker.endpoint);
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).env("WORK", work).kill_on_drop(true);
    let output = soon("the script ends", shell.output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "m0\nm1\n0\n", "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // `head` reads some kilobytes at once. What it did not read comes first.
    let first = pool.receive(10_000).await[0].offset;
    assert!((2..12_000).contains(&first), "{first}");
}

/// Starts a command whose output nobody reads unless the test does.
fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().unwrap() as i32);
    kill(pid, Signal::SIGINT).unwrap();
}

#[tokio::test]
async fn a_full_pipe_does_not_keep_a_signal_from_the_worker() {
    let (broker, mut pool) = with_jobs(0).await;
    // More than a pipe holds.
    let payloads = (0..200).map(|_| "x".repeat(1_000));
    broker.try_publish("jobs", PRODUCER, payloads).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut working = spawn(work(&broker, folder.path(), &[]));
    let mut begun = [0; 10];
    let read = working.stdout.as_mut().unwrap().read_exact(&mut begun);
    soon("it prints", read).await.unwrap();
    interrupt(&working);
    assert_eq!(soon("it ends", working.wait()).await.unwrap().code(), Some(130));
    let again = soon("they are given back", pool.receive_all(50)).await;
    assert!(again.iter().all(|work| work.attempt == 1), "{again:?}");
}

#[tokio::test]
async fn a_reader_of_errors_that_has_stalled_does_not_keep_a_signal_from_the_worker() {
    let (broker, _pool) = with_jobs(3).await;
    let folder = tempfile::tempdir().unwrap();
    // More than all that lies between.
    let command = "echo begun; head -c 4000000 /dev/zero >&2";
    let mut working = spawn(work(&broker, folder.path(), &["--workers", "3", "--exec", command]));
    let mut begun = [0; 6];
    let read = working.stdout.as_mut().unwrap().read_exact(&mut begun);
    soon("a command begins", read).await.unwrap();
    // The second signal that it hears ends the commands.
    until("it ends", async || match working.try_wait().unwrap() {
        Some(status) => {
            assert_eq!(status.code(), Some(130));
            true
        }
        None => {
            interrupt(&working);
            false
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_whose_commands_print_for_nobody_ends() {
    let (broker, mut pool) = with_jobs(50).await;
    let program = env!("CARGO_BIN_EXE_trunkline");
    let script = "timeout 15 $WORK --exec 'cat; echo' | head -n 1; echo ${PIPESTATUS[0]}";
    let work = format!("{program} --endpoint {} work jobs --subscription pool", broker.endpoint);
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).env("WORK", work).kill_on_drop(true);
    let output = soon("the script ends", shell.output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "m0\n0\n", "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("trunkline: nobody reads standard output any more\n"), "{errors}");
    assert!(!errors.contains("trying again"), "{errors}");
    let left = pool.describe().await.floor as usize;
    let again = pool.receive_all(50 - left).await;
    assert!(again.iter().all(|work| work.attempt == 1), "{again:?}");
}

#[tokio::test]
async fn a_command_has_the_payload_and_what_is_known_of_the_message() {
    let (broker, mut pool) = with_jobs(0).await;
    let publish = ["pub", "jobs", "one", "--key", "k1", "--producer", PRODUCER];
    let publish = [&publish[..], &["-H", "content-type=text", "-H", "größe=7"]].concat();
    broker.run(&publish).await.assert().success();
    broker.try_publish("jobs", PRODUCER, [vec![0xff, 0x00]]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let command = "cat > $TRUNKLINE_OFFSET.payload
        echo $TRUNKLINE_TOPIC $TRUNKLINE_ATTEMPT ${TRUNKLINE_KEY-none} \
             ${TRUNKLINE_HEADER_CONTENT_TYPE-none} > $TRUNKLINE_OFFSET
        echo done $TRUNKLINE_OFFSET";
    let done = run(&broker, &folder, &["--until-caught-up", "--exec", command]).await;
    assert_eq!((done.code(), &*done.stdout), (0, "done 0\ndone 1\n"), "{done:?}");
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("0.payload"), b"one");
    assert_eq!(read("1.payload"), [0xff, 0x00]);
    assert_eq!(String::from_utf8(read("0")).unwrap(), "jobs 1 k1 text\n");
    assert_eq!(String::from_utf8(read("1")).unwrap(), "jobs 1 none none\n");
    assert_eq!(pool.describe().await.floor, 2);
}

#[tokio::test]
async fn the_exit_code_of_a_command_says_what_becomes_of_its_message() {
    let (broker, mut pool) = with_jobs(3).await;
    let folder = tempfile::tempdir().unwrap();
    let command = "case $TRUNKLINE_OFFSET in
        0) exit 0 ;;
        1) echo first >&2; echo 'not an order' >&2; exit 65 ;;
        *) [ $TRUNKLINE_ATTEMPT -gt 1 ] || exit 3 ;;
        esac";
    // The last message is delivered twice.
    let worked = run(&broker, &folder, &["--max", "4", "--exec", command]).await;
    assert_eq!(worked.code(), 0, "{worked:?}");
    for line in [
        "not an order",
        "trunkline: offset 1, attempt 1: rejected: not an order",
        "trunkline: offset 2, attempt 1: exit status: 3: trying again",
    ] {
        assert!(worked.stderr.lines().any(|it| it == line), "{line}: {worked:?}");
    }
    let described = pool.describe().await;
    assert_eq!((described.floor, described.retried_messages), (3, 0));
    assert_eq!(described.parked_messages, 1);
    let parked = broker.run(&["subscription", "parked", "jobs", "pool"]).await;
    assert!(parked.stdout.lines().nth(1).unwrap().ends_with("not an order"), "{parked:?}");
}

#[tokio::test]
async fn so_many_commands_run_at_a_time() {
    let (broker, mut pool) = with_jobs(3).await;
    let folder = tempfile::tempdir().unwrap();
    // Each waits until all run.
    let command = "touch $TRUNKLINE_OFFSET
        while ! [ -e 0 -a -e 1 -a -e 2 ]; do sleep 0.02; done";
    let arguments = ["--until-caught-up", "--workers", "3", "--exec", command];
    let worked = run(&broker, &folder, &arguments).await;
    assert_eq!(worked.code(), 0, "{worked:?}");
    assert_eq!(pool.describe().await.floor, 3);
    let alone = run(&broker, &folder, &["--workers", "3"]).await;
    assert_eq!(alone.code(), 2, "{alone:?}");
}

/// A command that says that it runs, and ends once there is a file `go`.
const WAITING: &str = "echo begun; while [ ! -e go ]; do sleep 0.02; done; touch ended";

#[tokio::test]
async fn a_signal_waits_for_the_commands_that_run() {
    for (signal, code) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 130)] {
        let (broker, mut pool) = with_jobs(2).await;
        let folder = tempfile::tempdir().unwrap();
        let mut working =
            Trunkline::spawn_command(work(&broker, folder.path(), &["--exec", WAITING]));
        assert_eq!(working.line().await, "begun");
        working.signal(signal);
        working.log_line("waiting for the commands that run").await;
        fs::write(folder.path().join("go"), "").unwrap();
        assert_eq!(working.wait().await.code(), Some(code));
        assert!(folder.path().join("ended").exists());
        assert_eq!(pool.describe().await.floor, 1);
        assert_eq!(payloads(&pool.receive(2).await), ["m1"]);
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_commands() {
    let (broker, mut pool) = with_jobs(1).await;
    let folder = tempfile::tempdir().unwrap();
    let command = format!("trap 'touch stopped; exit 1' TERM; {WAITING}");
    let mut working = Trunkline::spawn_command(work(&broker, folder.path(), &["--exec", &command]));
    assert_eq!(working.line().await, "begun");
    working.signal(Signal::SIGINT);
    working.log_line("waiting for the commands that run").await;
    working.signal(Signal::SIGINT);
    assert_eq!(working.wait().await.code(), Some(130));
    until("the command is stopped", async || folder.path().join("stopped").exists()).await;
    assert!(!folder.path().join("ended").exists());
    let again = pool.receive(1).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m0"], 2));
}

#[tokio::test]
async fn a_worker_that_prints_ends_at_a_signal() {
    let (broker, mut pool) = with_jobs(1).await;
    let folder = tempfile::tempdir().unwrap();
    let mut working = Trunkline::spawn_command(work(&broker, folder.path(), &[]));
    assert_eq!(working.line().await, "m0");
    until("it is acknowledged", async || pool.describe().await.floor == 1).await;
    working.signal(Signal::SIGINT);
    assert_eq!(working.wait().await.code(), Some(130));
}

#[tokio::test]
async fn a_worker_that_cannot_work_says_why() {
    let (broker, _pool) = with_jobs(0).await;
    broker.consumer("jobs", "billing").await;
    for (id, text) in [("poool", "did you mean pool?"), ("billing", "`trunkline consume` prints")] {
        let refused = broker.run(&["work", "jobs", "--subscription", id]).await;
        assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
        assert!(refused.stderr.contains(text), "{refused:?}");
    }
    let shared = ["consume", "jobs", "--consumer", "pool", "--until-caught-up"];
    let shared = broker.run(&shared).await;
    assert_eq!(shared.code(), 1, "{shared:?}");
    assert!(shared.stderr.contains("`trunkline work` works on"), "{shared:?}");
}

#[tokio::test]
async fn a_command_that_leaves_something_running_does_not_hold_its_worker_up() {
    let (broker, mut pool) = with_jobs(1).await;
    let folder = tempfile::tempdir().unwrap();
    // It holds standard error open for longer than the test waits.
    let command = "sleep 30 </dev/null >/dev/null &";
    let worked = run(&broker, &folder, &["--until-caught-up", "--exec", command]).await;
    assert_eq!(worked.code(), 0, "{worked:?}");
    assert_eq!(pool.describe().await.floor, 1);
}
