//! The measuring harness: that it measures what it says.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::tools::Tools;
use serde_json::Value;

use crate::cases::{Case, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases!["bench": a_case_costs_more_than_its_floor, an_unknown_case_is_named]
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-bench"));
    command.args(arguments);
    command
}

fn a_case_costs_more_than_its_floor(_: Tools) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("bench.json");
    let path = file.to_str().context("the path is not UTF-8")?;
    let output = bench(&["limiter_exact_hot", "--json", path]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let size = &report["program"];
    let sizes = ["verified_instructions", "translated_bytes", "jited_bytes"].map(|name| size[name].as_u64());
    ensure!(sizes.iter().all(|size| size.is_some_and(|size| size > 1000)), "{size}");
    let cases = report["cases"].as_array().context("no cases")?;
    let median = |case: &Value| Some((case["name"].as_str()?.to_owned(), case["ns_median"].as_f64()?));
    let medians: BTreeMap<String, f64> = cases.iter().filter_map(median).collect();
    let [floor, case] = ["encap20_floor", "limiter_exact_hot"].map(|name| medians.get(name).copied());
    let (floor, case) = (floor.context("no floor")?, case.context("no case")?);
    // The case does all that the floor does, reads a clock and seven tables besides.
    ensure!(medians.len() == 2 && floor < case && case < 100_000.0, "{medians:?}");
    Ok(())
}

fn an_unknown_case_is_named(_: Tools) -> Result<()> {
    let output = bench(&["warp_speed"]).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "it ended with {}", output.status);
    ensure!(complaint.contains("there is no case warp_speed; there are: pass_floor, "), "{complaint}");
    Ok(())
}
