//! The host as a whole: its kernel, its BPF, its memory.

use std::path::Path;

use super::{Files, Finding};
use crate::datapath::{check_capabilities, check_kernel};

/// What of the host matters to programs that are pinned below `pins`.
pub fn host(files: &Files, pins: &Path) -> Vec<Finding> {
    vec![
        kernel(&files.read("proc/sys/kernel/osrelease").unwrap_or_default()),
        capabilities(&files.read("proc/self/status").unwrap_or_default()),
        jit(files.number("proc/sys/net/core/bpf_jit_enable")),
        bpffs(&files.read("proc/self/mountinfo").unwrap_or_default(), pins),
        types(files.exists("sys/kernel/btf/vmlinux")),
        memory(&files.read("proc/meminfo").unwrap_or_default()),
    ]
}

fn kernel(release: &str) -> Finding {
    match check_kernel(release) {
        Ok(()) => Finding::well("kernel", format!("Linux {release}")),
        Err(error) => Finding::bad("kernel", format!("Linux {release}"), error.to_string()),
    }
}

fn capabilities(status: &str) -> Finding {
    match check_capabilities(status) {
        Ok(()) => Finding::well("capabilities", "this user may load and attach the program"),
        Err(error) => Finding::note(
            "capabilities",
            "this user may not load the program",
            format!("only the daemon has to; {error}"),
        ),
    }
}

fn jit(enabled: Option<u64>) -> Finding {
    match enabled {
        Some(0) => Finding::bad(
            "jit",
            "off",
            "the kernel interprets the program, which makes each packet cost about ten times as much",
        )
        .mended_by("sysctl -w net.core.bpf_jit_enable=1"),
        Some(_) => Finding::well("jit", "on"),
        // Only root can look; where it is always on there is nothing to look at.
        None => Finding::well("jit", "not told"),
    }
}

/// The BPF file system that has `pins`, by the mounts of `/proc/self/mountinfo` (proc(5)).
fn bpffs(mounts: &str, pins: &Path) -> Finding {
    let mut found = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(4);
        let (point, options) = (head.next()?, head.next()?);
        (tail.starts_with("bpf ") && pins.starts_with(point)).then_some((point, options))
    });
    match found.next_back() {
        None => Finding::bad(
            "bpffs",
            format!("{} is on no BPF file system", pins.display()),
            "program and tables cannot be pinned there, so a daemon with on_exit = \"keep\" does not start",
        )
        .mended_by("mount -t bpf bpf /sys/fs/bpf"),
        Some((point, options)) if options.split(',').any(|option| option == "ro") => Finding::bad(
            "bpffs",
            format!("{point} is mounted read-only"),
            "nothing can be pinned there; systemd's ProtectKernelTunables does that to a service",
        )
        .mended_by(format!("mount -o remount,rw {point}")),
        Some((point, _)) => Finding::well("bpffs", format!("{point}, writable")),
    }
}

fn types(there: bool) -> Finding {
    if there {
        return Finding::well("types", "the kernel describes its types (BTF)");
    }
    let why = "lb does not need them, but bpftool and tracers show less without";
    Finding::note("types", "the kernel does not describe its types (no BTF)", why)
}

/// The tables of a few services and a million remembered flows, with room for tables of twice the size at a change of it.
const NEEDED_KIB: u64 = 256 * 1024;

fn memory(meminfo: &str) -> Finding {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    match available {
        Some(kib) if kib < NEEDED_KIB => Finding::note(
            "memory",
            format!("{} MiB available", kib / 1024),
            format!("the tables take up to {} MiB, which the kernel never swaps", NEEDED_KIB / 1024),
        ),
        Some(kib) => Finding::well("memory", format!("{} MiB available", kib / 1024)),
        None => Finding::well("memory", "not told"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, host_with};
    use super::*;

    const MOUNTS: &str = "22 1 0:20 / /sys rw,nosuid shared:2 - sysfs sysfs rw\n\
        30 22 0:27 / /sys/fs/bpf rw,nosuid,nodev shared:9 - bpf bpf rw,mode=700\n";

    fn severities(files: &[(&str, &str)]) -> Vec<(String, Severity)> {
        let (_root, files) = host_with(files);
        host(&files, Path::new("/sys/fs/bpf/lb")).into_iter().map(|one| (one.check, one.severity)).collect()
    }

    fn of(files: &[(&str, &str)], check: &str) -> Finding {
        let (_root, files) = host_with(files);
        host(&files, Path::new("/sys/fs/bpf/lb")).into_iter().find(|one| one.check == check).unwrap()
    }

    #[test]
    fn a_good_host_is_well() {
        let good = [
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/self/status", "CapEff:\t000001ffffffffff\n"),
            ("proc/sys/net/core/bpf_jit_enable", "1\n"),
            ("proc/self/mountinfo", MOUNTS),
            ("sys/kernel/btf/vmlinux", "x"),
            ("proc/meminfo", "MemTotal: 1\nMemAvailable:    8000000 kB\n"),
        ];
        let found = severities(&good);
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|(_, severity)| *severity == Severity::Well), "{found:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_what_mends_it() {
        let jit = of(&[("proc/sys/net/core/bpf_jit_enable", "0")], "jit");
        assert_eq!(
            (jit.severity, jit.mend.as_deref()),
            (Severity::Bad, Some("sysctl -w net.core.bpf_jit_enable=1"))
        );
        assert_eq!(of(&[("proc/sys/kernel/osrelease", "5.10.0")], "kernel").severity, Severity::Bad);
        assert_eq!(of(&[], "bpffs").mend.as_deref(), Some("mount -t bpf bpf /sys/fs/bpf"));
        let read_only = MOUNTS.replace("rw,nosuid,nodev", "ro,nosuid,nodev");
        let read_only = of(&[("proc/self/mountinfo", &read_only)], "bpffs");
        assert_eq!(read_only.mend.as_deref(), Some("mount -o remount,rw /sys/fs/bpf"));
        assert_eq!(of(&[("proc/meminfo", "MemAvailable: 90000 kB")], "memory").severity, Severity::Note);
        assert_eq!(of(&[("proc/self/status", "CapEff:\t0")], "capabilities").severity, Severity::Note);
        assert_eq!(of(&[], "types").severity, Severity::Note);
    }
}
