//! Whether a program can run in an image that holds nothing else: of the right machine, static.

use anyhow::{Context, Result, bail};

/// The header's number of each machine (ELF gABI, `e_machine`).
const MACHINES: [(&str, u16); 2] = [("amd64", 62), ("arm64", 183)];
/// The kind of segment that names a loader (`PT_INTERP`).
const LOADER: u32 = 3;

/// Refuses a program for another machine, and one that needs a loader.
pub(crate) fn check(program: &[u8], architecture: &str) -> Result<()> {
    let expected = MACHINES.iter().find(|(name, _)| *name == architecture);
    let (_, expected) = expected.with_context(|| format!("unknown machine `{architecture}`"))?;
    // 64 bits, little-endian.
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("the program is no 64-bit ELF file");
    }
    let machine = half(program, 18)?;
    if machine != *expected {
        bail!("the program is for machine {machine}, {architecture} is {expected}");
    }
    let table = usize::try_from(u64::from_le_bytes(bytes(program, 32)?))?;
    let (length, count) = (usize::from(half(program, 54)?), usize::from(half(program, 56)?));
    for number in 0..count {
        let at = number.checked_mul(length).and_then(|offset| offset.checked_add(table));
        let kind = u32::from_le_bytes(bytes(program, at.context("broken program headers")?)?);
        if kind == LOADER {
            bail!("the program is not static: it names a loader");
        }
    }
    Ok(())
}

fn half(program: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(bytes(program, at)?))
}

fn bytes<const N: usize>(program: &[u8], at: usize) -> Result<[u8; N]> {
    let end = at.checked_add(N).context("broken program")?;
    Ok(program.get(at..end).context("the program is cut off")?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and one segment of the kind.
    fn program(machine: u16, segment: u32) -> Vec<u8> {
        let mut program = vec![0; 64 + 56];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[18..20].copy_from_slice(&machine.to_le_bytes());
        program[32..40].copy_from_slice(&64_u64.to_le_bytes());
        program[54..56].copy_from_slice(&56_u16.to_le_bytes());
        program[56..58].copy_from_slice(&1_u16.to_le_bytes());
        program[64..68].copy_from_slice(&segment.to_le_bytes());
        program
    }

    #[test]
    fn a_static_program_of_the_machine_is_taken() {
        check(&program(62, 1), "amd64").unwrap();
        check(&program(183, 1), "arm64").unwrap();
    }

    #[test]
    fn a_program_that_could_not_start_is_refused() {
        let cut = &program(62, 1)[..60];
        for (program, architecture, why) in [
            (&program(183, 1)[..], "amd64", "machine 183"),
            (&program(62, LOADER), "amd64", "not static"),
            (b"#!/bin/sh\n", "amd64", "no 64-bit ELF"),
            (cut, "amd64", "cut off"),
            (&program(62, 1), "s390x", "unknown machine"),
        ] {
            let error = check(program, architecture).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
