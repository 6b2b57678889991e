//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The two programs that a lab runs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// `lb-lab`, for its hidden subcommand: servers.
    pub lab: PathBuf,
    /// `lb`, the program under test.
    pub lb: PathBuf,
}

impl Tools {
    /// For `lb-lab` itself.
    pub fn beside_this_program() -> Result<Self> {
        Self::with_lab(env::current_exe().context("cannot tell where this program is")?)
    }

    /// For others, who say where `lb-lab` is. `lb` is what `LB_BIN` names, else `lb-lab`'s neighbour.
    pub fn with_lab(lab: PathBuf) -> Result<Self> {
        let lb = env::var_os("LB_BIN").map_or_else(|| lab.with_file_name("lb"), PathBuf::from);
        ensure!(
            lb.is_file(),
            "there is no {}: build it with `cargo build`, or name another with LB_BIN",
            lb.display()
        );
        Ok(Self { lab, lb: absolute(&lb)? })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}
