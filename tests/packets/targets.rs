//! What coverage-guided fuzzers feed (`tests/fuzz`), each a function of bytes that fails where a law is broken.
//!
//! What they found worth keeping stands in `tests/fuzz/corpus`, and each of it is fed here again.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use lb_userspace::config::{
    Digest, LimitKeys, ServiceKeys, parse_drain_timeout, parse_text, read_limit, read_service, render,
    service_keys,
};
use lb_userspace::ipvs;
use lb_userspace::model::{Desired, Endpoint, Prefix, Service};
use lb_userspace::state::{Generation, Origin, decode, encode};
use lb_userspace::view::{AddBackend, DrainBackend, PrefixList, Rollback, SetBackend};
use libtest_mimic::Trial;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fixtures::sides::{Host, Side as _};
use crate::fixtures::{self, hex};
use crate::lawful::check_lawful;
use crate::{WORLD, decap, failed};

/// What a target is called, and what it does.
pub type Target = (&'static str, fn(&[u8]) -> Result<()>);

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("pipeline", pipeline),
    ("decap", decapsulation),
    ("config", config),
    ("api", api),
    ("state", state),
    ("ipvsadm", ipvsadm),
];

/// The longest packet of a sequence.
const LONGEST: usize = 2048;
/// The longest packet that fuzzers begin with, and how many fixtures there are for one of them.
const SEED: usize = 200;
const EVERY: usize = 10;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |(name, feed): Target| {
        Trial::test(format!("corpus::{name}"), move || replay(name, feed).map_err(failed))
    };
    TARGETS.into_iter().map(trial).collect()
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

fn replay(name: &str, feed: fn(&[u8]) -> Result<()>) -> Result<()> {
    let folder = corpus(name);
    if std::env::var_os("LB_WRITE_CORPUS").is_some() {
        write_seeds(name, &folder)?;
    }
    let mut count = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("there is no {}", folder.display()))? {
        let path = entry?.path();
        feed(&fs::read(&path)?).with_context(|| format!("{}", path.display()))?;
        count += 1;
    }
    ensure!(count > 0, "{} is empty", folder.display());
    Ok(())
}

/// Packets one after the other, each behind its length in two bytes, on the same tables.
pub fn pipeline(bytes: &[u8]) -> Result<()> {
    thread_local! {
        /// To fill its tables takes a thousand times as long as a packet.
        static HOST: RefCell<Host<'static>> = RefCell::new(Host::new(&WORLD).expect("the fixtures fit"));
    }
    HOST.with_borrow_mut(|host| {
        host.tables.forget_packets();
        for frame in frames(bytes) {
            let seen = host.observe(frame)?;
            check_lawful(frame, &seen).map_err(|error| anyhow!("{error:#}\nframe {}", hex(frame)))?;
        }
        Ok(())
    })
}

/// The same on a backend.
pub fn decapsulation(bytes: &[u8]) -> Result<()> {
    decap::check(frames(bytes))
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)) % LONGEST;
        let (frame, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        Some(frame)
    })
}

/// What is read is written so that it is read as the same.
pub fn config(bytes: &[u8]) -> Result<()> {
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    match parse_text(text, Path::new("lb.toml")) {
        Ok(text) => ensure_rendered(&text.desired),
        Err(error) => ensure_told(error.mistakes.iter().map(ToString::to_string)),
    }
}

fn ensure_rendered(desired: &Desired) -> Result<()> {
    let text = render(desired);
    let again = parse_text(&text, Path::new("rendered"));
    let again = again.map_err(|error| anyhow!("cannot be read again: {error}\n{text}"))?.desired;
    ensure!(again == *desired, "{desired:?}\nis read again as\n{again:?}\n{text}");
    Ok(())
}

/// Whoever refuses says why.
fn ensure_told(mistakes: impl Iterator<Item = String>) -> Result<()> {
    let mistakes: Vec<String> = mistakes.collect();
    ensure!(!mistakes.is_empty() && mistakes.iter().all(|told| !told.trim().is_empty()), "{mistakes:?}");
    Ok(())
}

/// Bodies of requests, the first byte of which says whose.
pub fn api(bytes: &[u8]) -> Result<()> {
    let Some((kind, body)) = bytes.split_first() else { return Ok(()) };
    match kind % 7 {
        0 => match body_of::<ServiceKeys>(body)?.map(|keys| read_service(&keys)) {
            Some(Ok(service)) => ensure_keys(&service),
            Some(Err(mistakes)) => ensure_told(mistakes.into_iter()),
            None => Ok(()),
        },
        1 => match body_of::<LimitKeys>(body)?.map(|keys| read_limit(&keys)) {
            Some(Err(mistakes)) => ensure_told(mistakes.iter().map(|mistake| format!("{mistake:?}"))),
            Some(Ok(_)) | None => Ok(()),
        },
        2 => {
            let Some(added) = body_of::<AddBackend>(body)? else { return Ok(()) };
            ensure_text(&added.address, |text| text.parse::<Endpoint>().ok())
        }
        3 => body_of::<SetBackend>(body).map(drop),
        4 => {
            let timeout = body_of::<DrainBackend>(body)?.and_then(|drain| drain.timeout);
            timeout.map_or(Ok(()), |text| parse_drain_timeout(&text).map(drop).or(Ok(())))
        }
        5 => {
            let prefixes = body_of::<PrefixList>(body)?.map(|list| list.prefixes).unwrap_or_default();
            prefixes.iter().try_for_each(|text| ensure_text(text, |text| text.parse::<Prefix>().ok()))
        }
        _ => body_of::<Rollback>(body).map(drop),
    }
}

/// A body as it is understood. It is written so that it is read as the same.
fn body_of<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<Option<T>> {
    let Ok(read) = serde_json::from_slice::<T>(body) else { return Ok(None) };
    let once = serde_json::to_value(&read)?;
    let again: T =
        serde_json::from_value(once.clone()).with_context(|| format!("cannot be read again: {once}"))?;
    ensure!(serde_json::to_value(&again)? == once, "{once} is read again as another thing");
    Ok(Some(read))
}

/// What a text says is written so that it is read as the same.
fn ensure_text<T: PartialEq + ToString>(text: &str, read: impl Fn(&str) -> Option<T>) -> Result<()> {
    let Some(value) = read(text) else { return Ok(()) };
    let written = value.to_string();
    ensure!(read(&written).is_some_and(|again| again == value), "{text:?} is written as {written:?}");
    Ok(())
}

fn ensure_keys(service: &Service) -> Result<()> {
    let keys = service_keys(service);
    let again =
        read_service(&keys).map_err(|mistakes| anyhow!("{keys:?} cannot be read again: {mistakes:?}"))?;
    ensure!(again == *service, "{service:?}\nis read again as\n{again:?}");
    Ok(())
}

/// The text of a file of the state directory, behind a first line that fits it.
pub fn state(bytes: &[u8]) -> Result<()> {
    let Ok(body) = str::from_utf8(bytes) else { return Ok(()) };
    let nothing = Generation::new(1, Origin::Api, Digest::of(""), Vec::new());
    let example = encode(&nothing, &Desired::default());
    let (words, _) =
        example.split_once('\n').and_then(|(first, _)| first.rsplit_once(' ')).context("no first line")?;
    let text = format!("{words} {}\n{body}", Digest::of(body));
    let Ok((generation, desired)) = decode(&text, Path::new("generation-1.toml")) else { return Ok(()) };
    let written = encode(&generation, &desired);
    let again = decode(&written, Path::new("written")).with_context(|| written.clone())?;
    ensure!(again == (generation, desired), "{written}\nis read again as\n{again:?}");
    Ok(())
}

/// What `ipvsadm-save` wrote.
pub fn ipvsadm(bytes: &[u8]) -> Result<()> {
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    match ipvs::import(text) {
        Ok(imported) => imported.services.iter().try_for_each(ensure_keys),
        Err(mistakes) => ensure_told(mistakes.iter().map(ToString::to_string)),
    }
}

/// Packets that the fixtures are about, a file each: from them a fuzzer finds the way to others.
fn write_seeds(name: &str, folder: &Path) -> Result<()> {
    let frames: Vec<Vec<u8>> = match name {
        "pipeline" => fixtures::all().into_iter().map(|fixture| fixture.frame).collect(),
        "decap" => decap::frames(),
        // Texts are written by people.
        _ => return Ok(()),
    };
    fs::create_dir_all(folder)?;
    let short = frames.into_iter().filter(|frame| frame.len() <= SEED);
    for (number, frame) in short.step_by(EVERY).enumerate() {
        let length = u16::try_from(frame.len())?.to_be_bytes();
        fs::write(folder.join(format!("fixture-{number}")), [&length[..], &frame].concat())?;
    }
    Ok(())
}
