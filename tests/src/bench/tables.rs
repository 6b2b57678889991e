//! What Maglev tables cost: to build, to install in the kernel, and what they move.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use lb_common::maglev::{self, Candidate, TableSize};
use lb_common::slot::{BackendId, Slot};
use lb_userspace::datapath::{Image, KernelDatapath, apply};

use super::median;

const FIGURES: usize = 9;

/// Figures by what was measured and the number of backends.
pub(super) type Figures = BTreeMap<&'static str, BTreeMap<u16, f64>>;

/// One table of the default size.
#[derive(Clone, Copy, Debug)]
struct TableCost {
    build_ms: f64,
    install_ms: f64,
    /// Slots of the other backends that move when one is removed.
    disruption_percent: f64,
}

/// Measures and tells the costs of tables of several sizes.
pub(super) fn measure_all(datapath: &mut KernelDatapath) -> Result<Figures> {
    println!(
        "\n{:>8} {:>9} {:>11} {:>13}   (tables of 65 537 slots)",
        "BACKENDS", "BUILD ms", "INSTALL ms", "DISRUPTION %"
    );
    let mut figures = Figures::new();
    for backends in [10, 100, 1000] {
        let TableCost { build_ms, install_ms, disruption_percent } = measure(datapath, backends)?;
        println!("{backends:8} {build_ms:9.2} {install_ms:11.2} {disruption_percent:13.2}");
        let parts =
            [("build_ms", build_ms), ("install_ms", install_ms), ("disruption_percent", disruption_percent)];
        for (name, figure) in parts {
            figures.entry(name).or_default().insert(backends, figure);
        }
    }
    Ok(figures)
}

/// Measures tables of `backends` backends.
fn measure(datapath: &mut KernelDatapath, backends: u16) -> Result<TableCost> {
    let all: Vec<Candidate> = (0..backends).map(candidate).collect::<Result<_>>()?;
    let (gone, rest) = all.split_first().context("no backends")?;
    let build_ms = median_ms(|| {
        drop(maglev::build(&all, TableSize::DEFAULT));
        Ok(())
    })?;
    let (before, after) = (maglev::build(&all, TableSize::DEFAULT), maglev::build(rest, TableSize::DEFAULT));
    let of_others = before.iter().zip(&after).filter(|(b, a)| **b != gone.id && b != a).count();
    // Every slot differs from one installation to the next, which is the worst there is.
    let images = [
        image(&before),
        image(&before.iter().map(|id| next(*id)).collect::<Option<Vec<_>>>().context("ids")?),
    ];
    apply(datapath, &Image::default(), &images[0])?;
    let mut turn = 0;
    let install_ms = median_ms(|| {
        turn += 1;
        apply(datapath, &images[(turn + 1) % 2], &images[turn % 2])?;
        Ok(())
    })?;
    apply(datapath, &images[turn % 2], &Image::default())?;
    let slots = f64::from(TableSize::DEFAULT.slots());
    let disruption_percent = f64::from(u32::try_from(of_others)?) * 100.0 / slots;
    Ok(TableCost { build_ms, install_ms, disruption_percent })
}

/// A stand-in for a backend's address: two numbers that look random.
fn candidate(number: u16) -> Result<Candidate> {
    let mix = |n: u64| {
        (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let id = BackendId::try_new(number).context("more backends than ids")?;
    Ok(Candidate { id, weight: 100, identity: [mix(u64::from(number)), mix(u64::from(number) << 20)] })
}

fn next(id: BackendId) -> Option<BackendId> {
    BackendId::try_new(id.number() + 1)
}

fn image(table: &[BackendId]) -> Image {
    let slots = table.iter().map(|id| Slot::settled(*id)).collect();
    Image { slots: [(0, slots)].into(), ..Image::default() }
}

fn median_ms(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut time = || {
        let begun = Instant::now();
        work()?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    };
    let times: Vec<f64> = (0..FIGURES).map(|_| time()).collect::<Result<_>>()?;
    Ok(median(times.into_iter()))
}
