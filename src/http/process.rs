//! The process, as metrics. Their names are those that all Prometheus clients use.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::metrics::{Collection, Samples};

/// The process that the broker runs in.
pub(super) struct ProcessMetrics {
    started: SystemTime,
}

impl ProcessMetrics {
    /// Counts the process as started now.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collection for ProcessMetrics {
    fn write(&self, samples: &mut Samples<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        samples.gauge(
            "process_start_time_seconds",
            "When the process started",
            started.as_secs_f64(),
        )?;
        let build = [([("version", env!("CARGO_PKG_VERSION"))], 1.0)];
        samples.gauges("trunkline_build_info", "The version of the broker", build)?;
        #[cfg(target_os = "linux")]
        linux(samples)?;
        Ok(())
    }
}

/// What Linux says of the process. What it does not say is left out.
#[cfg(target_os = "linux")]
fn linux(samples: &mut Samples<'_>) -> fmt::Result {
    let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
    if let Ok(stat) = process.stat() {
        let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        samples.seconds_counter(
            "process_cpu_seconds",
            "CPU time that the process has used",
            seconds,
        )?;
    }
    if let Ok(status) = process.status() {
        for (name, description, kibibytes) in [
            ("process_resident_memory_bytes", "Memory of the process that is in RAM", status.vmrss),
            ("process_virtual_memory_bytes", "Address space of the process", status.vmsize),
        ] {
            if let Some(kibibytes) = kibibytes {
                samples.gauge(name, description, kibibytes as f64 * 1024.0)?;
            }
        }
    }
    if let Ok(open) = process.fd_count() {
        samples.gauge("process_open_fds", "Files and sockets that are open", open as f64)?;
    }
    if let Ok(limits) = process.limits()
        && let procfs::process::LimitValue::Value(limit) = limits.max_open_files.soft_limit
    {
        samples.gauge("process_max_fds", "Files and sockets that may be open", limit as f64)?;
    }
    Ok(())
}
