//! Loopback addresses, and partitions by the kernel, which drops packets to and from an address.
//!
//! Unlike with a proxy, the kernels of both ends notice the partition themselves, as between two
//! machines: by keepalives and by missing acknowledgements.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

/// Loopback addresses that no other run uses at the same time.
pub struct Network([u8; 2]);

impl Network {
    pub fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let process = std::process::id();
        Self([64 + (process % 128) as u8, NEXT.fetch_add(1, Ordering::Relaxed)])
    }

    pub fn address_of(&self, broker: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0[0], self.0[1], 1 + broker as u8)
    }
}

/// A partition of one address; heals when dropped, and by itself after a minute.
pub struct Partition {
    /// The name of the kernel's table.
    table: String,
}

impl Partition {
    /// Drops all packets of an address; prints why and returns `None` if that is impossible.
    pub fn of(address: Ipv4Addr) -> Option<Self> {
        let table = format!("trunkline_faults_{}", address.to_bits());
        let rules = format!(
            "add table inet {table}
             add set inet {table} away {{ type ipv4_addr; flags timeout; }}
             add chain inet {table} input {{ type filter hook input priority 0; }}
             flush chain inet {table} input
             add rule inet {table} input iifname lo ip daddr @away drop
             add rule inet {table} input iifname lo ip saddr @away drop
             add element inet {table} away {{ {address} timeout {}s }}",
            LONGEST.as_secs()
        );
        match nft(&rules) {
            Ok(()) => Some(Self { table }),
            Err(problem) => {
                crate::support::print_always(&format!(
                    "skipped: no partition by the kernel, as nft says: {problem}"
                ));
                None
            }
        }
    }
}

/// Ends a partition whose process was killed before it healed it.
const LONGEST: Duration = Duration::from_secs(60);

impl Drop for Partition {
    fn drop(&mut self) {
        let _ = nft(&format!("delete table inet {}", self.table));
    }
}

fn nft(rules: &str) -> Result<(), String> {
    let output = Command::new("nft").arg(rules).env("PATH", path()).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// The number of established connections to an address, according to the kernel of this side.
pub fn connections_to(address: Ipv4Addr) -> usize {
    const ESTABLISHED: &str = "01";
    // The kernel prints the bytes of the address as a number in native byte order.
    let remote = format!("{:08X}:", u32::from_ne_bytes(address.octets()));
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|of| of[2].starts_with(&remote) && of[3] == ESTABLISHED).count()
}
