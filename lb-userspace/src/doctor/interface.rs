//! One interface: what the program can be on it, and what the kernel does before and after.

use super::driver::{Told, joined, native};
use super::{Files, Finding};

/// The interfaces that packets can come in by: Ethernet, and up.
pub fn interfaces(files: &Files) -> Vec<String> {
    /// `ARPHRD_ETHER` of `include/uapi/linux/if_arp.h`.
    const ETHERNET: u64 = 1;
    let is_ethernet = |name: &String| files.number(&format!("sys/class/net/{name}/type")) == Some(ETHERNET);
    let is_up =
        |name: &String| files.read(&format!("sys/class/net/{name}/operstate")).as_deref() == Some("up");
    files.names("sys/class/net").into_iter().filter(|name| is_ethernet(name) && is_up(name)).collect()
}

/// What of an interface matters, whose driver told this; `None` if there is no such interface.
pub fn interface(files: &Files, name: &str, told: Told) -> Option<Vec<Finding>> {
    let of = |what: &str| format!("sys/class/net/{name}/{what}");
    if !files.exists(&of("")) {
        return None;
    }
    let queues = files.names(&of("queues")).iter().filter(|queue| queue.starts_with("rx-")).count();
    let cpus = files.read("sys/devices/system/cpu/online").map_or(1, |text| count(&text));
    let strict = |of: &str| files.number(&format!("proc/sys/net/ipv4/conf/{of}/rp_filter")).unwrap_or(0);
    Some(vec![
        native(name, files.target(&of("device/driver")), told.xdp_features),
        joined(name, told.large_receive),
        mtu(name, files.number(&of("mtu"))),
        spread(name, queues, cpus),
        rp_filter(name, strict("all").max(strict(name))),
    ])
}

/// What IPv6 in IPv6 and a UDP header take.
const OUTER: u64 = 48;

fn mtu(name: &str, mtu: Option<u64>) -> Finding {
    let check = format!("{name} mtu");
    match mtu {
        Some(mtu @ 0..=1500) => Finding::note(
            check,
            format!("{mtu}"),
            format!(
                "packets of {mtu} bytes do not fit into a tunnel (modes ipip and gue): who sends them is told, and sends smaller \
                 ones, unless something on the way drops ICMP; dsr-l2 and nat need no more"
            ),
        )
        .mended_by(format!("ip link set {name} mtu {}", mtu + OUTER)),
        Some(mtu) => Finding::well(check, format!("{mtu}")),
        None => Finding::well(check, "not told"),
    }
}

fn spread(name: &str, queues: usize, cpus: usize) -> Finding {
    let (check, found) = (format!("{name} queues"), format!("{queues} receive queues, {cpus} CPUs"));
    if queues >= cpus {
        return Finding::well(check, found);
    }
    Finding::note(check, found, "each queue's packets are handled by one CPU, so the others do nothing")
        .mended_by(format!("ethtool -L {name} combined {cpus}"))
}

fn rp_filter(name: &str, value: u64) -> Finding {
    let check = format!("{name} rp_filter");
    if value != 1 {
        return Finding::well(check, if value == 0 { "off" } else { "loose" });
    }
    Finding::note(
        check,
        "strict",
        "of packets that are the host's own the kernel drops those that it would not answer by this interface; what lb forwards \
         is not concerned, but health checks and the host's own connections can be",
    )
    .mended_by(format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2 net.ipv4.conf.all.rp_filter=2"))
}

/// CPUs in a list such as `0-3,8` (Documentation/admin-guide/cputopology.rst).
fn count(cpus: &str) -> usize {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        Some((last + 1).saturating_sub(first))
    };
    cpus.split(',').filter_map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, host_with};
    use super::*;

    #[test]
    fn cpus_are_counted() {
        assert_eq!(["0", "0-3", "0-3,8", "0,2,4-5", ""].map(count), [1, 4, 5, 4, 0]);
    }

    #[test]
    fn interfaces_are_those_that_packets_can_come_by() {
        let (_root, files) = host_with(&[
            ("sys/class/net/eth0/type", "1\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth1/type", "1\n"),
            ("sys/class/net/eth1/operstate", "down\n"),
            ("sys/class/net/lo/type", "772\n"),
            ("sys/class/net/lo/operstate", "up\n"),
        ]);
        assert_eq!(interfaces(&files), ["eth0"]);
        assert_eq!(interface(&files, "eth7", Told::default()), None);
    }

    #[test]
    fn an_interface_is_looked_at() {
        let (root, files) = host_with(&[
            ("sys/class/net/eth0/mtu", "1500\n"),
            ("sys/class/net/eth0/queues/rx-0/x", ""),
            ("sys/class/net/eth0/queues/rx-1/x", ""),
            ("sys/class/net/eth0/queues/tx-0/x", ""),
            ("sys/class/net/eth0/device/x", ""),
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
            ("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n"),
        ]);
        std::os::unix::fs::symlink(
            "../../drivers/e1000",
            root.path().join("sys/class/net/eth0/device/driver"),
        )
        .unwrap();
        let found =
            interface(&files, "eth0", Told { large_receive: Some(true), xdp_features: None }).unwrap();
        let notes: Vec<_> = found.iter().filter(|one| one.severity == Severity::Note).collect();
        let mends: Vec<_> =
            notes.iter().map(|one| (one.check.as_str(), one.mend.as_deref().unwrap_or(""))).collect();
        let expected = [
            ("eth0 driver", ""),
            ("eth0 lro", "ethtool -K eth0 lro off"),
            ("eth0 mtu", "ip link set eth0 mtu 1548"),
            ("eth0 queues", "ethtool -L eth0 combined 8"),
            ("eth0 rp_filter", "sysctl -w net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.all.rp_filter=2"),
        ];
        assert_eq!(mends, expected);
    }
}
