//! How the demo looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::{BACKENDS, VIP4};

/// Width of a bar that stands for everything.
const FULL: usize = 60;

pub(super) fn introduction() {
    println!("lb: a load balancer that forwards packets inside the Linux kernel (XDP)");
    println!();
    println!(
        "This demo builds a network of six miniature machines (network namespaces) and removes it at the end:"
    );
    println!();
    println!("    client1 ──┐              ┌── backend1");
    println!("              ├── balancer ──┼── backend2     three web servers");
    println!("    client2 ──┘     lb       └── backend3");
    println!();
    println!("Clients know one address only, {VIP4}: the virtual IP (VIP). lb, on the balancer,");
    println!("sends each connection to one of the backends, which answer the client directly.");
    println!();
}

/// Begins a numbered chapter.
pub(super) fn chapter(title: &str) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    println!("\n{}. {title}\n", NUMBER.fetch_add(1, Ordering::Relaxed));
}

pub(super) fn say(text: &str) {
    println!("{}", format!("   {text}").trim_end());
}

/// The output of a command, as if it had been typed.
pub(super) fn show(command: &str, output: &str) {
    say(&format!("$ {command}"));
    output.trim_end().lines().for_each(say);
}

/// A bar for each backend, also for one that answered nothing.
pub(super) fn bars(counts: &BTreeMap<String, usize>) {
    let total = counts.values().sum::<usize>().max(1);
    for name in BACKENDS.map(|node| node.to_string()) {
        let count = counts.get(&name).copied().unwrap_or(0);
        let bar = "█".repeat((count * FULL).div_ceil(total));
        say(&format!("{name}  {count:4}  {bar}"));
    }
}
