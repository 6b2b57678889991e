//! Debian's package manager.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Those of `packages` that are not installed.
pub(crate) fn not_installed(packages: &[String]) -> Result<Vec<String>> {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("cannot start dpkg-query")?;
    // It also fails when only some of the packages are unknown: what it printed is the answer.
    let listing = String::from_utf8_lossy(&query.stdout);
    Ok(packages.iter().filter(|package| !is_listed_as_installed(&listing, package)).cloned().collect())
}

fn is_listed_as_installed(listing: &str, package: &str) -> bool {
    listing.lines().any(|line| line.split_once(' ') == Some((package, "installed")))
}

/// Fetches the lists of available packages.
pub(crate) fn update() -> Result<()> {
    println!("Reading the lists of packages (apt-get update)");
    apt_get(&["update", "--quiet=2"])
}

/// Whether `package` can be installed, by the lists of available packages.
pub(crate) fn is_available(package: &str) -> bool {
    let query = Command::new("apt-cache")
        .args(["show", package])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    query.is_ok_and(|status| status.success())
}

/// Installs `packages` after listing them. Never removes one.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let unavailable: Vec<_> = packages.iter().filter(|package| !is_available(package)).cloned().collect();
    if !unavailable.is_empty() {
        bail!("this Debian release has no package {}", unavailable.join(", "));
    }
    println!("Installing {}: {}", count(packages.len()), packages.join(" "));
    let mut args = vec!["install", "--yes", "--no-install-recommends", "--no-remove", "--quiet=2"];
    args.extend(packages.iter().map(String::as_str));
    apt_get(&args)
}

fn count(packages: usize) -> String {
    if packages == 1 { "1 package".to_owned() } else { format!("{packages} packages") }
}

fn apt_get(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        // Another apt may be at work, nobody may be there to answer questions or to watch a progress bar.
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get {} failed", args.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_installed_package_counts() {
        let listing = "ethtool not-installed\niproute2 installed\nllvm-22-dev config-files\n";
        assert!(is_listed_as_installed(listing, "iproute2"));
        for absent in ["ethtool", "llvm-22-dev", "llvm-22", "util-linux"] {
            assert!(!is_listed_as_installed(listing, absent), "{absent}");
        }
    }
}
