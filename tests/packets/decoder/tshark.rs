//! A decoder that is not ours: tshark reads frames and tells what it thinks of each.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::process;

/// How long it may take to read a file.
const PATIENCE: Duration = Duration::from_mins(1);

/// It checks ICMP by itself. Pieces shall be read as they are.
const PREFERENCES: [&str; 5] = [
    "ip.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
];
/// It does not know GUE, whose variant 1 is IP in UDP.
const GUE: &str = "udp.port==6080,ip";

/// What is asked about each frame.
const FIELDS: [&str; 9] = [
    "frame.len",
    "frame.protocols",
    "_ws.malformed",
    "_ws.expert.severity",
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];

/// Values of `checksum.status` in `epan/proto.h`, besides 0 for a bad one: good, not checked, and not there.
const GOOD: &str = "1";
const UNVERIFIED: &str = "2";
const ABSENT: &str = "3";
/// `PI_ERROR` of the same file: wrong packets. Lesser severities remark on what a single packet of a connection must look like.
const ERROR: u64 = 0x0080_0000;

/// What it says about a frame.
#[derive(Debug)]
pub(super) struct Reading {
    length: usize,
    /// The protocols, the outermost first.
    pub(super) protocols: String,
    malformed: bool,
    severest: u64,
    /// Statuses of checksums, except those of quoted packets, which it does not check.
    checksums: BTreeSet<String>,
}

impl Reading {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [length, protocols, malformed, severities, sums @ ..] = &fields[..] else {
            anyhow::bail!("tshark printed {line:?}")
        };
        ensure!(sums.len() == FIELDS.len() - 4, "tshark printed {line:?}");
        let severities = severities.split(',').filter(|text| !text.is_empty()).map(str::parse::<u64>);
        let severest = severities.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
        let checksums = sums.iter().flat_map(|values| values.split(','));
        let checksums = checksums.filter(|status| !status.is_empty()).map(str::to_owned).collect();
        Ok(Self {
            length: length.parse().with_context(|| format!("tshark printed {line:?}"))?,
            protocols: (*protocols).to_owned(),
            malformed: !malformed.is_empty(),
            severest,
            checksums,
        })
    }

    /// Why the frame is no good.
    pub(super) fn complaint(&self, frame: &[u8]) -> Option<String> {
        let known = [GOOD, UNVERIFIED, ABSENT];
        let bad = self.checksums.iter().any(|status| !known.contains(&status.as_str()));
        let any_checked = self.checksums.contains(GOOD) || self.protocols.ends_with(":arp");
        let sound =
            !self.malformed && !bad && any_checked && self.severest < ERROR && self.length == frame.len();
        (!sound).then(|| format!("{self:?}"))
    }
}

/// Lets it read frames, which are kept in `directory` meanwhile.
pub(super) fn read(frames: &[Vec<u8>], directory: &Path) -> Result<Vec<Reading>> {
    let path = directory.join("frames.pcap");
    std::fs::write(&path, capture(frames)).with_context(|| format!("cannot write {}", path.display()))?;
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(&path).args(["-d", GUE, "-T", "fields"]);
    tshark.args(PREFERENCES.iter().flat_map(|preference| ["-o", preference]));
    tshark.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let text = process::succeed(tshark, PATIENCE)
        .context("this test needs tshark, which `cargo xtask test` installs on Debian")?;
    let readings = text.lines().map(Reading::parse).collect::<Result<Vec<_>>>()?;
    ensure!(readings.len() == frames.len(), "{} frames were written, {} read", frames.len(), readings.len());
    Ok(readings)
}

/// A capture file (draft-ietf-opsawg-pcap, section 4) of Ethernet frames.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    // Magic number, version 2.4, two words of no meaning, the longest frame, link type Ethernet.
    let mut file = words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 1 << 16, 1]);
    for (second, frame) in (0..).zip(frames) {
        let length = frame.len() as u32;
        file.extend(words(&[second, 0, length, length]));
        file.extend(frame);
    }
    file
}
