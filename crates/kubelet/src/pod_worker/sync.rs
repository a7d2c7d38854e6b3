//! Carrying out a plan: what has to stop is stopped, the sandbox is made, containers start in order.

use futures::future::join_all;

use super::plan::{Kill, KillReason, Plan};
use super::{Context, StepFailed, sandbox, start, stop};
use crate::pod;
use crate::runtime_view::RuntimePod;

/// Does what the plan says. A container that cannot be started does not keep the others from it.
pub async fn carry_out(context: Context, plan: Plan, runtime: RuntimePod) -> Result<(), StepFailed> {
    let kills = plan.kill.iter().map(|kill| kill_one(&context, &runtime, kill));
    for outcome in join_all(kills).await {
        outcome?;
    }
    if let Some(attempt) = plan.new_sandbox {
        return sandbox::make(&context, attempt, &runtime).await;
    }
    if plan.start.is_empty() {
        return Ok(());
    }
    sandbox::ensure_volumes(&context).await?;
    for wanted in &plan.start {
        start::start(&context, wanted, &runtime).await?;
    }
    Ok(())
}

async fn kill_one(context: &Context, runtime: &RuntimePod, kill: &Kill) -> Result<(), StepFailed> {
    let Some(found) = runtime.by_id(&kill.id) else { return Ok(()) };
    let name = &kill.name;
    let message = match kill.why {
        KillReason::Liveness => format!("Container {name} failed liveness probe, will be restarted"),
        KillReason::Startup => format!("Container {name} failed startup probe, will be restarted"),
        KillReason::SpecChanged => format!("Container {name} definition changed, will be restarted"),
        KillReason::Unknown => format!("Container is in {:?} state, try killing it before restart", "Unknown"),
    };
    let spec = pod::find_container(&context.pod, name).map(|(_, container)| container);
    let probe = spec.as_ref().and_then(|container| match kill.why {
        KillReason::Liveness => container.liveness_probe.as_ref(),
        KillReason::Startup => container.startup_probe.as_ref(),
        KillReason::SpecChanged | KillReason::Unknown => None,
    });
    let of_probe = probe.and_then(|probe| probe.termination_grace_period_seconds);
    let grace = of_probe.unwrap_or_else(|| pod::grace_period_seconds(&context.pod));
    stop::stop_one(context, runtime, found, grace, Some(message)).await
}
