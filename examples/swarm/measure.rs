//! Memory and processor time, as the kernel counts them. What they mean is said
//! in `report.rs`.

use std::{fs, io};

use rustix::param::{clock_ticks_per_second, page_size};
use serde::Serialize;

use crate::plan::meminfo;

/// Of some processes together, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct UserMemory {
    /// What is shared counts for each.
    pub rss: u64,
    /// What is shared is divided.
    pub pss: u64,
}

/// Of the whole machine, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KernelMemory {
    /// Sockets, files, inodes, timers: whatever has a size of its own.
    pub slab: u64,
    pub page_tables: u64,
    pub stacks: u64,
    /// What lies in the buffers of TCP.
    pub tcp: u64,
}

impl UserMemory {
    pub fn of(processes: impl Iterator<Item = u32>) -> io::Result<Self> {
        let mut sum = Self::default();
        for process in processes {
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let field = |name| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|line| line.split_whitespace().next());
                kib.and_then(|kib| kib.parse::<u64>().ok())
                    .unwrap_or_default()
                    * 1024
            };
            sum.rss += field("Rss:");
            sum.pss += field("Pss:");
        }
        Ok(sum)
    }
}

impl KernelMemory {
    pub fn now() -> io::Result<Self> {
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        let line = sockets.lines().find(|line| line.starts_with("TCP:"));
        let pages = line.and_then(|line| line.split(" mem ").nth(1)?.trim().parse().ok());
        let page = u64::try_from(page_size()).unwrap_or_default();
        Ok(Self {
            slab: meminfo("Slab")?,
            page_tables: meminfo("PageTables")?,
            stacks: meminfo("KernelStack")?,
            tcp: pages.unwrap_or(0) * page,
        })
    }

    /// Without the buffers, which are in it in parts.
    pub fn total(&self) -> u64 {
        self.slab + self.page_tables + self.stacks
    }
}

/// What some processes used so far, in user and in kernel mode, in seconds.
pub fn processor_time(processes: impl Iterator<Item = u32>) -> io::Result<f64> {
    let mut ticks = 0;
    for process in processes {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field is a name in parentheses, with anything in it.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        let times = fields.split_whitespace().skip(11).take(2);
        ticks += times
            .filter_map(|time| time.parse::<u32>().ok())
            .map(u64::from)
            .sum::<u64>();
    }
    Ok(seconds(ticks))
}

/// For how long the processors of this machine worked so far, for whomever, in
/// seconds.
pub fn machine_time() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let worked = fields
        .iter()
        .enumerate()
        .take(8)
        .filter(|(index, _)| !matches!(index, 3 | 4));
    Ok(seconds(worked.map(|(_, ticks)| ticks).sum()))
}

#[expect(clippy::cast_precision_loss, reason = "years are exact")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}
