//! Tells the neighbours which VIPs are this host's: on networks where no router sends them here, hosts that remember another
//! machine for a VIP would go on sending to it.
//!
//! A VIP is announced when it is new and when a link comes up, by the frames that RFC 5227 and RFC 4861 give for that. The
//! program answers those who ask; this module only speaks unasked.

mod frames;
mod links;
mod schedule;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use links::{Links, News};
use schedule::{Announcement, Schedule};
use socket::PacketSocket;

/// Announces VIPs until it is dropped.
#[derive(Debug)]
pub struct Announcer {
    _task: JoinSet<()>,
}

impl Announcer {
    /// Starts to announce, on each of `interfaces` (name and index), what `vips` holds and will hold.
    ///
    /// Works in the calling thread's network namespace; needs a tokio runtime with I/O and time. What fails is told as a
    /// warning: packets are balanced without it.
    pub fn start(
        interfaces: impl IntoIterator<Item = (String, u32)>,
        vips: watch::Receiver<BTreeSet<IpAddr>>,
    ) -> Self {
        let names = interfaces.into_iter().map(|(name, ifindex)| (ifindex, name)).collect();
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = announce(names, vips).await {
                tracing::warn!("VIPs are announced no more: cannot follow the state of interfaces: {error}");
            }
        });
        Self { _task: task }
    }
}

/// Announces until nobody can change the VIPs any more.
async fn announce(
    names: BTreeMap<u32, String>,
    mut vips: watch::Receiver<BTreeSet<IpAddr>>,
) -> io::Result<()> {
    // Most daemons announce nothing: they need no socket for it.
    if vips.wait_for(|vips| !vips.is_empty()).await.is_err() {
        return Ok(());
    }
    let mut links = Links::connect().await?;
    let mut schedule = Schedule::default();
    schedule.set_vips(vips.borrow_and_update().clone(), Instant::now());
    loop {
        let next = schedule.next();
        tokio::select! {
            changed = vips.changed() => match changed {
                Ok(()) => schedule.set_vips(vips.borrow_and_update().clone(), Instant::now()),
                Err(_) => return Ok(()),
            },
            news = links.next() => match news? {
                News::States(states) => {
                    let ours = states.into_iter().filter(|state| names.contains_key(&state.ifindex));
                    ours.for_each(|state| schedule.set_link(state, Instant::now()));
                }
                News::Lost => schedule.forget_links(),
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Err(refused) = send(&names, schedule.take_due(Instant::now())).await {
                    tracing::warn!("{refused}");
                    schedule.give_up();
                }
            }
        }
    }
}

/// Why VIPs were not announced.
#[derive(Debug)]
struct Refused {
    vips: BTreeSet<IpAddr>,
    error: Errno,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vips: Vec<String> = self.vips.iter().map(ToString::to_string).collect();
        write!(
            f,
            "cannot announce {}: {}; give lb CAP_NET_RAW and, under systemd, AF_PACKET in RestrictAddressFamilies; \
             requests for VIPs are answered all the same",
            vips.join(", "),
            self.error
        )
    }
}

/// Sends frames, or says why none could be sent.
async fn send(names: &BTreeMap<u32, String>, due: Vec<Announcement>) -> Result<(), Refused> {
    let name = |ifindex| names.get(&ifindex).map_or("?", String::as_str);
    for Announcement { ifindex, vip, .. } in due.iter().filter(|announcement| announcement.first) {
        tracing::info!("announcing {vip} on {}", name(*ifindex));
    }
    let vips = due.iter().map(|announcement| announcement.vip).collect();
    // A full queue makes the sender wait.
    let sent = spawn_blocking(move || send_all(&due)).await.unwrap_or(Ok(Vec::new()));
    for (Announcement { ifindex, vip, .. }, error) in sent.map_err(|error| Refused { vips, error })? {
        tracing::warn!("cannot announce {vip} on {}: {error}", name(ifindex));
    }
    Ok(())
}

/// Sends every frame; those that were refused and why, or why there is no socket.
fn send_all(due: &[Announcement]) -> Result<Vec<(Announcement, Errno)>, Errno> {
    let socket = PacketSocket::open()?;
    let send = |announcement: &Announcement| {
        let frame = frames::announcement(announcement.vip, announcement.mac);
        let error = socket.send(announcement.ifindex, &frame).err()?;
        // The link went down a moment ago: it is told when it is back.
        (!matches!(error, Errno::NETDOWN | Errno::NXIO)).then_some((*announcement, error))
    };
    Ok(due.iter().filter_map(send).collect())
}
