//! States of backends, drains and slow starts.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn first(text: &str) -> (AdminState, ServiceOptions) {
    let service = read_ok(&with_service(text)).services.remove(0);
    (service.backends[0].admin, service.options)
}

#[test]
fn states_are_read() {
    let state = |keys: &str| first(&format!("backends = [{{ address = \"10.0.1.1:80\"{keys} }}]")).0;
    assert_eq!(state(""), AdminState::Ready);
    assert_eq!(state(", state = \"ready\""), AdminState::Ready);
    assert_eq!(state(", state = \"maintenance\""), AdminState::Maintenance);
    assert_eq!(state(", state = \"drain\""), AdminState::Drain { timeout: None });
    let timeout = Some(90 * SECOND);
    assert_eq!(state(", state = \"drain\", drain_timeout = \"90s\""), AdminState::Drain { timeout });
}

#[test]
fn drains_and_slow_starts_are_read() {
    let options = |text: &str| {
        let options = first(&format!("{text}\nbackends = [{{ address = \"10.0.1.1:80\" }}]")).1;
        (options.drain_timeout, options.slow_start)
    };
    assert_eq!(options(""), (None, None));
    assert_eq!(options("drain_timeout = \"1s\"\nslow_start = \"1s\""), (Some(SECOND), Some(SECOND)));
    let (week, day) = (Duration::from_hours(168), Duration::from_hours(24));
    assert_eq!(options("drain_timeout = \"168h\"\nslow_start = \"24h\""), (Some(week), Some(day)));
    assert_eq!(options("slow_start = \"0s\""), (None, None));
}

#[test]
fn mistakes_in_states_drains_and_slow_starts_are_refused() {
    for (rest, expected) in MISTAKES {
        assert_eq!(mistakes(&with_service(rest)), format!("lb.toml:8: service web: {expected}"), "{rest}");
    }
}

/// Line 8, and what stands behind the service's name.
const MISTAKES: &[(&str, &str)] = &[
    (
        "backends = [{ address = \"10.0.1.1:80\", state = \"drained\" }]",
        "backends[0].state: \"drained\" is unknown; expected \"ready\" or \"drain\" or \"maintenance\"",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\", state = true }]",
        "backends[0].state: expected a string in quotes, found a boolean",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\", drain_timeout = \"5m\" }]",
        "backends[0].drain_timeout: only a drain has a time-out; remove the key, or write state = \"drain\"",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\", state = \"drain\", drain_timeout = \"0s\" }]",
        "backends[0].drain_timeout: \"0s\" is not from 1s to 168h; without a time-out drains have no end, and \
         maintenance ends flows at once",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\", weight = 65536 }]",
        "backends[0].weight: 65536 is not from 0 to 65535",
    ),
    (
        "backends = [{ address = \"10.0.1.1:80\", weight = -1 }]",
        "backends[0].weight: -1 is not from 0 to 65535",
    ),
    (
        "drain_timeout = \"0s\"",
        "drain_timeout: \"0s\" is not from 1s to 168h; without a time-out drains have no end, and maintenance ends \
         flows at once",
    ),
    (
        "drain_timeout = \"169h\"",
        "drain_timeout: \"169h\" is not from 1s to 168h; without a time-out drains have no end, and maintenance \
         ends flows at once",
    ),
    ("drain_timeout = 5", "drain_timeout: expected a string in quotes, found an integer"),
    ("slow_start = \"25h\"", "slow_start: \"25h\" is neither \"0s\" nor from 1s to 24h"),
    ("slow_start = \"999ms\"", "slow_start: \"999ms\" is neither \"0s\" nor from 1s to 24h"),
    (
        "slow_start = \"1d\"",
        "slow_start: \"1d\" is not a duration; expected a whole number with ms, s, m or h, such as \"500ms\", \"1s\" \
         or \"2m\"",
    ),
];
