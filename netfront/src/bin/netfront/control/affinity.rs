//! The CPUs of packet threads: asked for, and set.

use std::fs;

use netfront::engine::cores::cpu_list;
use netfront::engine::Service;
use serde_json::{json, Value};

use super::requests::{done, refused};
use super::Subject;

/// Has a queue, or all, go to the CPUs that the question names, and tells where all threads are.
pub fn affinity(subject: &Subject, question: &Value) -> Value {
    let service = &subject.service;
    let queues = service.snapshots().len();
    let mut warnings = Vec::new();
    match &question["cpus"] {
        Value::Null => {}
        Value::String(text) => {
            let Some(cpus) = cpu_list(text) else {
                return refused(&format!("cpus: wanted a list as in 0-3,8, found {text:?}"));
            };
            let placed = match &question["queue"] {
                Value::Null => service.place_all(&cpus),
                number => match number
                    .as_u64()
                    .and_then(|number| usize::try_from(number).ok())
                {
                    Some(queue) => service.place(queue, &cpus).map(|placed| vec![placed]),
                    None => return refused(&format!("queue: wanted a number, found {number}")),
                },
            };
            match placed {
                Ok(placed) => warnings.extend(placed.into_iter().filter_map(|it| it.refused)),
                Err(error) => return refused(&error.to_string()),
            }
        }
        other => return refused(&format!("cpus: wanted a list as text, found {other}")),
    }
    let mut reply = done(subject);
    reply["queues"] = (0..queues)
        .map(|queue| {
            let [cpu, cpus] = place(service, queue);
            json!({ "queue": queue, "cpu": cpu, "cpus": cpus })
        })
        .collect();
    reply["warnings"] = warnings.into();
    reply
}

/// The CPU that the thread of a queue ran on last, and those that it may run on, as the kernel lists them.
pub fn place(service: &Service, queue: usize) -> [Value; 2] {
    let Some(thread) = service.thread(queue) else {
        return [Value::Null, Value::Null];
    };
    let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{file}"));
    let cpu = read("stat").ok().and_then(|stat| last_cpu(&stat));
    let status = read("status").unwrap_or_default();
    let lines = status.lines();
    let cpus = lines.filter_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    [json!(cpu), json!(cpus.map(str::trim).next())]
}

/// Field 39 of /proc/PID/stat; the name, the second, may have blanks and parentheses of its own.
fn last_cpu(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(39 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cpu_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (nf0q0 ) x) {}", fields.join(" "));
        assert_eq!(last_cpu(&stat), Some(39));
        assert_eq!(last_cpu("7 (nf0q0) S"), None);
    }
}
