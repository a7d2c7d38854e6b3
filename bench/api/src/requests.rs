//! One request after the other: reading, creating and updating one object, at one connection and at 32.

use std::time::Duration;

use anyhow::Result;
use bench_harness::load::{self, Load};
use bench_harness::{Figure, Meter, Round, RoundArguments};
use http::Method;

use crate::account::WORK;
use crate::objects;
use crate::session::{Api, Target};

/// Connections, each with one request under way.
const LEVELS: [usize; 2] = [1, 32];
const LENGTH_S: u64 = 4;

pub fn figures() -> Vec<Figure> {
    let of = |name: &str, title: &str, p50_times: f64, rate_times: f64| {
        [
            Figure::lower(&format!("{name}_1_p50_ms"), &format!("{title}, 1 connection, p50"), "ms").times(p50_times),
            Figure::lower(&format!("{name}_32_p99_ms"), &format!("{title}, 32 connections, p99"), "ms"),
            Figure::higher(&format!("{name}_32_rate"), &format!("{title}, 32 connections"), "1/s").times(rate_times),
            Figure::higher(&format!("{name}_per_cpu_s"), &format!("{title}, per CPU-second of the servers"), "1/s"),
        ]
    };
    let get = of("get", "GET one pod", 8.0, 8.0);
    let create = of("create", "create a ConfigMap of 1 KiB, durable", 5.0, 10.0);
    let update = of("update", "update a ConfigMap of 1 KiB, durable", 5.0, 10.0);
    [get, create, update].concat()
}

pub async fn measure(asked: &RoundArguments, target: &Target, meter: &Meter, round: &mut Round) -> Result<()> {
    for count in LEVELS {
        let connections = Api::connections(target, count).await?;
        let clients: Vec<_> = connections.into_iter().enumerate().collect();
        for name in ["get", "create", "update"].into_iter().filter(|name| asked.wants(name)) {
            let (clients, cpu_before_s) = (clients.clone(), meter.cpu_s()?);
            let load = match name {
                "get" => get(clients).await?,
                "create" => create(clients).await?,
                _ => update(clients).await?,
            };
            put(round, name, count, &load, meter.cpu_s()? - cpu_before_s);
        }
    }
    Ok(())
}

fn put(round: &mut Round, name: &str, count: usize, load: &Load, cpu_s: f64) {
    if count == 1 {
        round.put(&format!("{name}_1_p50_ms"), load.percentile_ms(50));
    } else {
        round.put(&format!("{name}_{count}_p99_ms"), load.percentile_ms(99));
        round.put(&format!("{name}_{count}_rate"), load.rate);
        round.put(&format!("{name}_per_cpu_s"), load.total as f64 / cpu_s);
    }
}

type Clients = Vec<(usize, Api)>;

async fn get(mut clients: Clients) -> Result<Load> {
    let pods = objects::path(WORK, "pods");
    let name = format!("single-{}", clients.len());
    clients[0].1.must(Method::POST, &pods, objects::pod(&name)).await?;
    let path = format!("{pods}/{name}");
    load::run(clients, Duration::from_secs(LENGTH_S), move |_, (client, mut api)| {
        let path = path.clone();
        async move {
            api.must(Method::GET, &path, "").await?;
            Ok((client, api))
        }
    })
    .await
}

async fn create(clients: Clients) -> Result<Load> {
    let count = clients.len();
    load::run(clients, Duration::from_secs(LENGTH_S), move |number, (client, mut api)| async move {
        let object = objects::config_map(&format!("made-{count}-{client}-{number}"), 0, None);
        api.must(Method::POST, &objects::path(WORK, "configmaps"), object).await?;
        Ok((client, api))
    })
    .await
}

/// Each client has an object of its own and says which version it replaces, as controllers do.
async fn update(clients: Clients) -> Result<Load> {
    let count = clients.len();
    let mut owners = Vec::new();
    for (client, mut api) in clients {
        let object = objects::config_map(&format!("kept-{count}-{client}"), 0, None);
        let made = api.must(Method::POST, &objects::path(WORK, "configmaps"), object).await?;
        owners.push((client, api, objects::version_in(&made)?));
    }
    load::run(owners, Duration::from_secs(LENGTH_S), move |number, (client, mut api, version)| async move {
        let name = format!("kept-{count}-{client}");
        let object = objects::config_map(&name, number as u64 + 1, Some(&version.to_string()));
        let path = format!("{}/{name}", objects::path(WORK, "configmaps"));
        let answer = api.must(Method::PUT, &path, object).await?;
        Ok((client, api, objects::version_in(&answer)?))
    })
    .await
}
