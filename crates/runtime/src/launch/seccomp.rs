//! System call filters: the default one, and profiles in the JSON form that runtimes share.
//!
//! ```text
//! architecture? -> rules with conditions on arguments, one by one -> the rest by binary search over number ranges -> default
//! ```
//!
//! Most calls a program makes are unconditional, so the search costs about seven comparisons whatever the call.

use std::{collections::BTreeMap, os::raw::c_ulong, path::Path};

use serde::Deserialize;

use super::{Failure, capability, plan::SeccompPlan, syscall_names as names};
use crate::syscalls;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on are the x32 interface, which nothing we list means.
const X32_FIRST: u32 = 0x4000_0000;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// The kernel's limit on a filter's length.
const PROGRAM_LENGTH_MAX: usize = 4096;

/// A compiled filter.
pub struct Filter(Vec<libc::sock_filter>);

/// Compares one argument of a call.
#[derive(Clone, Debug)]
struct Condition {
    index: u32,
    operator: Operator,
    value: u64,
    mask: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What happens to a call, and when: all conditions must hold.
struct Rule {
    number: u32,
    action: u32,
    conditions: Vec<Condition>,
}

struct Profile {
    default: u32,
    rules: Vec<Rule>,
}

/// Makes the filter for a process with these capabilities; empty for unconfined.
pub fn compile(plan: &SeccompPlan, capabilities: u64) -> Result<Filter, Failure> {
    let profile = match plan {
        SeccompPlan::Unconfined => return Ok(Filter(Vec::new())),
        SeccompPlan::RuntimeDefault => default_profile(capabilities),
        SeccompPlan::File(path) => read_profile(path)?,
    };
    let program = assemble(&profile);
    if program.len() > PROGRAM_LENGTH_MAX {
        return Err(Failure("seccomp profile is too long".into()));
    }
    Ok(Filter(program))
}

/// Puts the filter in force for this process and all it becomes.
pub fn install(filter: &Filter) -> Result<(), Failure> {
    let program = libc::sock_fprog { len: filter.0.len() as u16, filter: filter.0.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call and the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0 as c_ulong,
            &program as *const libc::sock_fprog,
        )
    };
    syscalls::check(result as i32).map(drop).map_err(|error| Failure(format!("install seccomp filter: {error}")))
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

fn allow_when(name: &str, conditions: &[(u32, Operator, u64, u64)]) -> Vec<Rule> {
    let number = names::number(name);
    let rule = |&(index, operator, value, mask): &(u32, Operator, u64, u64)| {
        number.map(|number| Rule {
            number,
            action: ALLOW,
            conditions: vec![Condition { index, operator, value, mask }],
        })
    };
    conditions.iter().filter_map(rule).collect()
}

/// The default: a list of what ordinary programs need, wider with each capability that a call needs anyway.
fn default_profile(capabilities: u64) -> Profile {
    let has = |name: &str| capability::bit(name).is_some_and(|bit| capabilities & bit != 0);
    let allowed = names::DEFAULT_ALLOWED
        .iter()
        .chain(names::ALLOWED_WITH.iter().filter(|(name, _)| has(name)).flat_map(|(_, calls)| calls.iter()));
    let allow = |name: &&str| names::number(name).map(|number| Rule { number, action: ALLOW, conditions: vec![] });
    let mut rules: Vec<Rule> = allowed.filter_map(allow).collect();
    if !has("SYS_ADMIN") {
        // New namespaces, except through these flags' absence; libraries fall back from clone3 when it is not there.
        rules.extend(allow_when("clone", &[(0, Operator::Equal, 0, 0x7e02_0000)]));
        if let Some(number) = names::number("clone3") {
            rules.push(Rule { number, action: errno(libc::ENOSYS), conditions: vec![] });
        }
    }
    let exact = u64::MAX;
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.extend(allow_when("personality", &[(0, Operator::Equal, persona, exact)]));
    }
    // Sockets to the hypervisor's host are not the container's business.
    rules.extend(allow_when("socket", &[(0, Operator::NotEqual, libc::AF_VSOCK as u64, exact)]));
    Profile { default: errno(libc::EPERM), rules }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonProfile {
    default_action: String,
    default_errno_ret: Option<i32>,
    #[serde(default)]
    syscalls: Vec<JsonRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Vec<JsonCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonCondition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn read_profile(path: &Path) -> Result<Profile, Failure> {
    let failed = |why: String| Failure(format!("seccomp profile {}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|error| failed(super::os_message(&error)))?;
    parse_profile(&text).map_err(failed)
}

fn parse_profile(text: &[u8]) -> Result<Profile, String> {
    let json: JsonProfile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    for rule in &json.syscalls {
        let action = action(&rule.action, rule.errno_ret)?;
        let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        // Names of other architectures are in every shared profile; they mean nothing here.
        let numbers = rule.names.iter().filter_map(|name| names::number(name));
        rules.extend(numbers.map(|number| Rule { number, action, conditions: conditions.clone() }));
    }
    Ok(Profile { default: action(&json.default_action, json.default_errno_ret)?, rules })
}

fn action(name: &str, errno_return: Option<i32>) -> Result<u32, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_ERRNO" => errno(errno_return.unwrap_or(libc::EPERM)),
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        other => return Err(format!("action {other} is not supported")),
    })
}

fn condition(json: &JsonCondition) -> Result<Condition, String> {
    if json.index > 5 {
        return Err(format!("argument {} does not exist", json.index));
    }
    let (operator, value, mask) = match json.op.as_str() {
        "SCMP_CMP_EQ" => (Operator::Equal, json.value, u64::MAX),
        "SCMP_CMP_NE" => (Operator::NotEqual, json.value, u64::MAX),
        "SCMP_CMP_LT" => (Operator::Less, json.value, u64::MAX),
        "SCMP_CMP_LE" => (Operator::LessOrEqual, json.value, u64::MAX),
        "SCMP_CMP_GT" => (Operator::Greater, json.value, u64::MAX),
        "SCMP_CMP_GE" => (Operator::GreaterOrEqual, json.value, u64::MAX),
        "SCMP_CMP_MASKED_EQ" => (Operator::Equal, json.value_two, json.value),
        other => return Err(format!("comparison {other} is not supported")),
    };
    Ok(Condition { index: json.index, operator, value, mask })
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn assemble(profile: &Profile) -> Vec<libc::sock_filter> {
    // Offsets into seccomp_data: number 0, architecture 4, arguments from 16 on.
    let mut program = vec![
        instruction(LOAD, 4),
        branch(IF_EQUAL, ARCHITECTURE, 1, 0),
        instruction(RETURN, KILL_PROCESS),
        instruction(LOAD, 0),
    ];
    if cfg!(target_arch = "x86_64") {
        program.extend([branch(IF_AT_LEAST, X32_FIRST, 0, 1), instruction(RETURN, profile.default)]);
    }
    for rule in profile.rules.iter().filter(|rule| !rule.conditions.is_empty()) {
        let block = conditional(rule);
        program.push(branch(IF_EQUAL, rule.number, 1, 0));
        program.push(instruction(JUMP, block.len() as u32));
        program.extend(block);
    }
    let mut by_number = BTreeMap::new();
    for rule in profile.rules.iter().filter(|rule| rule.conditions.is_empty()) {
        by_number.entry(rule.number).or_insert(rule.action);
    }
    program.extend(search(&ranges(&by_number), profile.default));
    program
}

/// A rule's conditions one after the other; falls through with the call's number loaded when one does not hold.
fn conditional(rule: &Rule) -> Vec<libc::sock_filter> {
    let checks: Vec<Vec<libc::sock_filter>> = rule.conditions.iter().map(check).collect();
    let mut block = Vec::new();
    let total: usize = checks.iter().map(|check| check.len() + 1).sum();
    for check in checks {
        block.extend(check);
        // A check ends by skipping the next instruction when it holds.
        let rest = total - block.len();
        block.push(instruction(JUMP, rest as u32));
    }
    block.push(instruction(RETURN, rule.action));
    block.push(instruction(LOAD, 0));
    block
}

/// One 64-bit comparison in two halves. It continues at the second instruction after it when it holds, at the next one
/// when it does not.
fn check(condition: &Condition) -> Vec<libc::sock_filter> {
    let offset = 16 + 8 * condition.index;
    let high = (condition.value >> 32) as u32;
    let low = condition.value as u32;
    let mut code = vec![instruction(LOAD, offset + 4), instruction(AND, (condition.mask >> 32) as u32)];
    let low_part =
        |compare: libc::sock_filter| [instruction(LOAD, offset), instruction(AND, condition.mask as u32), compare];
    match condition.operator {
        Operator::Equal => {
            code.push(branch(IF_EQUAL, high, 0, 3));
            code.extend(low_part(branch(IF_EQUAL, low, 1, 0)));
        }
        Operator::NotEqual => {
            code.push(branch(IF_EQUAL, high, 0, 4));
            code.extend(low_part(branch(IF_EQUAL, low, 0, 1)));
        }
        Operator::Greater | Operator::GreaterOrEqual => {
            let compare = if condition.operator == Operator::Greater { IF_GREATER } else { IF_AT_LEAST };
            code.push(branch(IF_GREATER, high, 5, 0));
            code.push(branch(IF_EQUAL, high, 0, 3));
            code.extend(low_part(branch(compare, low, 1, 0)));
        }
        Operator::Less | Operator::LessOrEqual => {
            let compare = if condition.operator == Operator::Less { IF_AT_LEAST } else { IF_GREATER };
            code.push(branch(IF_GREATER, high, 4, 0));
            code.push(branch(IF_EQUAL, high, 0, 4));
            code.extend(low_part(branch(compare, low, 0, 1)));
        }
    }
    code
}

/// Runs of neighbouring numbers with the same action: first, last, action.
fn ranges(by_number: &BTreeMap<u32, u32>) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for (&number, &action) in by_number {
        match ranges.last_mut() {
            Some((_, last, same)) if *last + 1 == number && *same == action => *last = number,
            _ => ranges.push((number, number, action)),
        }
    }
    ranges
}

fn search(ranges: &[(u32, u32, u32)], default: u32) -> Vec<libc::sock_filter> {
    match ranges {
        [] => vec![instruction(RETURN, default)],
        [(first, last, action)] => vec![
            branch(IF_AT_LEAST, *first, 0, 2),
            branch(IF_GREATER, *last, 1, 0),
            instruction(RETURN, *action),
            instruction(RETURN, default),
        ],
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let left = search(low, default);
            let mut code = vec![branch(IF_AT_LEAST, high[0].0, 0, 1), instruction(JUMP, left.len() as u32)];
            code.extend(left);
            code.extend(search(high, default));
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do: a small interpreter of the instructions used here.
    fn run(program: &[libc::sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => number,
            4 => ARCHITECTURE,
            _ => {
                let argument = arguments[((offset - 16) / 8) as usize];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut position, mut accumulator) = (0, 0);
        loop {
            let step = program[position];
            position += 1;
            let holds = match step.code {
                LOAD => {
                    accumulator = word(step.k);
                    continue;
                }
                AND => {
                    accumulator &= step.k;
                    continue;
                }
                JUMP => {
                    position += step.k as usize;
                    continue;
                }
                RETURN => return step.k,
                IF_EQUAL => accumulator == step.k,
                IF_GREATER => accumulator > step.k,
                IF_AT_LEAST => accumulator >= step.k,
                other => panic!("unknown instruction {other}"),
            };
            position += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    fn verdict(program: &[libc::sock_filter], name: &str, first: u64) -> u32 {
        run(program, names::number(name).unwrap(), [first, 0, 0, 0, 0, 0])
    }

    #[test]
    fn default_lets_ordinary_calls_through_and_stops_the_rest() {
        let plain = assemble(&default_profile(capability::default_set()));
        let admin = assemble(&default_profile(capability::ALL));
        let denied = errno(libc::EPERM);
        let cases = [
            ("read", 0, ALLOW, ALLOW),
            ("execve", 0, ALLOW, ALLOW),
            ("mount", 0, denied, ALLOW),
            ("unshare", 0, denied, ALLOW),
            ("clone", 0x11, ALLOW, ALLOW),
            ("clone", 0x1000_0011, denied, ALLOW),
            ("clone3", 0, errno(libc::ENOSYS), ALLOW),
            ("kexec_load", 0, denied, denied),
            ("keyctl", 0, denied, denied),
            ("personality", 0, ALLOW, ALLOW),
            ("personality", 0x4000, denied, denied),
            ("personality", 0x1_0000_0000, denied, denied),
            ("socket", 1, ALLOW, ALLOW),
            ("socket", libc::AF_VSOCK as u64, denied, denied),
            ("chroot", 0, ALLOW, ALLOW),
            ("reboot", 0, denied, ALLOW),
        ];
        for (name, first, without, with) in cases {
            assert_eq!(verdict(&plain, name, first), without, "{name}({first:#x})");
            assert_eq!(verdict(&admin, name, first), with, "{name}({first:#x}) with all capabilities");
        }
        assert_eq!(run(&plain, X32_FIRST, [0; 6]), denied);
        assert!(plain.len() < 600, "{}", plain.len());
    }

    #[test]
    fn profiles_compare_all_64_bits_of_arguments() {
        let operators = [
            ("EQ", [false, true, false, false]),
            ("NE", [true, false, true, true]),
            ("LT", [true, false, false, false]),
            ("LE", [true, true, false, false]),
            ("GT", [false, false, true, true]),
            ("GE", [false, true, true, true]),
        ];
        let value = 0x1_0000_0005_u64;
        for (operator, expected) in operators {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[{{"names":["read","nonsense"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":0,"value":{value},"op":"SCMP_CMP_{operator}"}}]}}]}}"#
            );
            let program = assemble(&parse_profile(json.as_bytes()).unwrap());
            let got = [5, value, value + 1, 0x2_0000_0000].map(|argument| verdict(&program, "read", argument) == ALLOW);
            assert_eq!(got, expected, "{operator}");
            assert_eq!(verdict(&program, "write", value), errno(38));
        }
        assert!(parse_profile(br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err());
    }
}
