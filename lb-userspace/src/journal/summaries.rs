//! What packets met meanwhile, told every so often: one sentence for what millions of them have in common.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Journal;
use crate::api::Shared;
use crate::model::Action;
use crate::view::{EventKind, InterfaceView, LimitView};

/// How often.
const PERIOD: Duration = Duration::from_secs(10);

/// What was counted when it was looked at last.
#[derive(Debug, Default)]
struct Summaries {
    drops: Option<BTreeMap<(String, String), u64>>,
    over: Option<BTreeMap<(Option<String>, String), u64>>,
}

/// Tells of packets that were dropped and of limits that were met until `shutdown` completes or there is nobody to ask.
pub async fn summarize(control: Shared, journal: Journal, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut summaries = Summaries::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut shutdown => return,
        }
        let (Ok(interfaces), Ok(limits)) = (control.interfaces().await, control.limits(None).await) else {
            return;
        };
        summaries.drops(&interfaces, &journal);
        summaries.limits(&limits, &journal);
    }
}

impl Summaries {
    fn drops(&mut self, interfaces: &[InterfaceView], journal: &Journal) {
        let counted = |one: &InterfaceView| {
            let name = one.name.clone();
            one.drops
                .iter()
                .map(move |drop| ((name.clone(), drop.reason.clone()), drop.packets))
                .collect::<Vec<_>>()
        };
        let now: BTreeMap<_, _> = interfaces.iter().flat_map(counted).collect();
        let more = increase(&mut self.drops, now);
        for InterfaceView { name, .. } in interfaces {
            let own = more.iter().filter(|((interface, _), _)| interface == name);
            let reasons: Vec<String> =
                own.clone().map(|((_, reason), packets)| format!("{reason} {packets}")).collect();
            if !reasons.is_empty() {
                let all: u64 = own.map(|(_, packets)| packets).sum();
                let seconds = PERIOD.as_secs();
                let text = format!("{name} dropped {all} packets in {seconds} s: {}", reasons.join(", "));
                journal.tell(EventKind::Drop, None, text);
            }
        }
    }

    fn limits(&mut self, limits: &[LimitView], journal: &Journal) {
        let key = |limit: &LimitView| (limit.service.clone(), limit.name.clone());
        let more = increase(&mut self.over, limits.iter().map(|limit| (key(limit), limit.over)).collect());
        for limit in limits {
            let Some(packets) = more.get(&key(limit)) else { continue };
            let done = match limit.action {
                Action::Drop => "dropped",
                Action::Mark => "marked",
                Action::Shadow => "only counted",
            };
            let (name, seconds) = (&limit.name, PERIOD.as_secs());
            let text = format!(
                "{packets} packets over limiter {name} in {seconds} s, {done}; lb limit top tells whose"
            );
            journal.tell(EventKind::Limit, limit.service.as_deref(), text);
        }
    }
}

/// By how much each count has grown; nothing at first, and what begins anew begins at nothing.
fn increase<K: Ord + Clone>(
    before: &mut Option<BTreeMap<K, u64>>,
    now: BTreeMap<K, u64>,
) -> BTreeMap<K, u64> {
    let last = before.replace(now.clone());
    let Some(last) = last else { return BTreeMap::new() };
    let grown = |(key, count): (K, u64)| {
        let by = count.saturating_sub(last.get(&key).copied().unwrap_or_default());
        (by > 0).then_some((key, by))
    };
    now.into_iter().filter_map(grown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, drops: &[(&str, u64)]) -> InterfaceView {
        InterfaceView::example(name, drops, &[])
    }

    #[tokio::test]
    async fn what_was_dropped_meanwhile_is_one_sentence() {
        let (journal, mut summaries) = (Journal::default(), Summaries::default());
        let mut follower = journal.follow(None).unwrap();
        summaries.drops(&[interface("eth0", &[("denied", 1_000)])], &journal);
        summaries.drops(&[interface("eth0", &[("denied", 1_000)])], &journal);
        let now = [interface("eth0", &[("denied", 1_007), ("limited", 3)]), interface("eth1", &[])];
        summaries.drops(&now, &journal);
        let event = follower.next().await.unwrap();
        assert_eq!(event.to_string(), "drop    eth0 dropped 10 packets in 10 s: denied 7, limited 3");
        summaries.drops(&[interface("eth0", &[("denied", 2)])], &journal);
        journal.close();
        assert!(follower.next().await.is_err(), "a table that begins anew has dropped nothing");
    }
}
