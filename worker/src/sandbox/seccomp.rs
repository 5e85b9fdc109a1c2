//! The [list](super::system_calls) of system calls as a seccomp filter (seccomp(2)).
//!
//! Calls that are allowed whatever their arguments cost nearly nothing: since Linux 5.11 the kernel keeps them as a bitmap, and runs no
//! filter for them.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::errno::Errno;
use nix::libc::c_int;
use nix::unistd::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::system_calls::{Condition, SYSTEM_CALLS, Verdict};

/// Kills the process when it calls what is not listed, from now on.
///
/// # Errors
/// Why it cannot be done, in words.
pub fn allow_only_listed() -> Result<(), String> {
    let programs = programs().map_err(|error| error.to_string())?;
    programs
        .iter()
        .try_for_each(|program| apply_filter_all_threads(program))
        .map_err(|error| match &error {
            seccompiler::Error::Prctl(io) | seccompiler::Error::Seccomp(io) => {
                format!("seccomp: {}", Errno::from_raw(io.raw_os_error().unwrap_or(0)))
            }
            _ => error.to_string(),
        })
}

/// A filter for each error that calls are answered with, and the one that kills, which comes last: it does not allow
/// further filters. Of what several filters say the strictest counts.
fn programs() -> Result<Vec<BpfProgram>, BackendError> {
    let architecture = TargetArch::try_from(ARCH)?;
    let mut answered: BTreeMap<c_int, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    let mut allowed = BTreeMap::new();
    for call in SYSTEM_CALLS {
        let mut rules = Vec::new();
        match call.verdict {
            Verdict::Allow => {}
            Verdict::AllowIf(alternatives) => {
                for conditions in alternatives {
                    let conditions = conditions.iter().map(condition).collect::<Result<_, _>>()?;
                    rules.push(SeccompRule::new(conditions)?);
                }
            }
            Verdict::Answer(errno) => {
                answered
                    .entry(errno as c_int)
                    .or_default()
                    .insert(call.number, Vec::new());
            }
        }
        allowed.insert(call.number, rules);
    }
    let program = |rules, otherwise, then| SeccompFilter::new(rules, otherwise, then, architecture)?.try_into();
    let mut programs = Vec::new();
    for (errno, rules) in answered {
        let answer = SeccompAction::Errno(errno.cast_unsigned());
        programs.push(program(rules, SeccompAction::Allow, answer)?);
    }
    programs.push(program(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?);
    Ok(programs)
}

fn condition(condition: &Condition) -> Result<SeccompCondition, BackendError> {
    let (argument, operator, value) = match *condition {
        Condition::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
        Condition::Without(argument, bits) => (argument, SeccompCmpOp::MaskedEq(bits.cast_unsigned().into()), 0),
        Condition::IsOwnProcess(argument) => (argument, SeccompCmpOp::Eq, getpid().as_raw()),
    };
    let value = value.cast_unsigned().into();
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
