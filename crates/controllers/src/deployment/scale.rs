//! Changing a deployment's size while several of its sets are alive: each grows or shrinks in proportion, so that a rollout
//! in the middle keeps its shape. Rounding errors go to the largest set.

use super::facts::{DESIRED_REPLICAS, MAX_REPLICAS, Set, Strategy};
use super::plan::Model;

pub fn scale(model: &mut Model<'_>) {
    let replicas = model.facts.replicas;
    if let Some(only) = active_or_latest(model) {
        if model.sets[only].replicas != replicas {
            model.resize(only, replicas);
        }
        return;
    }
    if model.new_set().is_some_and(|new| is_saturated(new, replicas)) {
        for old in model.old() {
            if model.sets[old].replicas > 0 {
                model.resize(old, 0);
            }
        }
        return;
    }
    if let Strategy::Rolling { .. } = model.facts.strategy {
        in_proportion(model);
    }
}

/// The one set that has pods; the current one, or the latest, when none has; none when several have.
fn active_or_latest(model: &Model<'_>) -> Option<usize> {
    let active: Vec<usize> = (0..model.sets.len()).filter(|index| model.sets[*index].replicas > 0).collect();
    match active[..] {
        [] => model.new.or_else(|| model.old().last().copied()),
        [one] => Some(one),
        _ => None,
    }
}

fn is_saturated(set: &Set, replicas: i32) -> bool {
    set.replicas == replicas && set.number_annotation(DESIRED_REPLICAS) == Some(replicas) && set.available == replicas
}

fn in_proportion(model: &mut Model<'_>) {
    let replicas = model.facts.replicas;
    let allowed = if replicas > 0 { replicas + model.facts.max_surge() } else { 0 };
    let to_add = allowed - model.total();
    let mut order: Vec<usize> = (0..model.sets.len()).filter(|index| model.sets[*index].replicas > 0).collect();
    // Largest first; of equal ones the newer grows first and the older shrinks first.
    order.sort_by(|&a, &b| {
        let by_age = model.sets[a].age_order().cmp(&model.sets[b].age_order());
        let by_age = if to_add > 0 { by_age.reverse() } else { by_age };
        model.sets[b].replicas.cmp(&model.sets[a].replicas).then(by_age)
    });
    let mut added = 0;
    let mut sizes = Vec::new();
    for &index in &order {
        let share = if to_add == 0 { 0 } else { proportion(model, index, to_add, added) };
        added += share;
        sizes.push(model.sets[index].replicas + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in order.into_iter().zip(sizes) {
        model.resize(index, size);
    }
}

fn proportion(model: &Model<'_>, index: usize, to_add: i32, added: i32) -> i32 {
    let set = &model.sets[index];
    if set.replicas == 0 || to_add == added {
        return 0;
    }
    let (share, left) = (fraction(model, set), to_add - added);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// How much the set grows when the whole goes from its former greatest size to the new one.
fn fraction(model: &Model<'_>, set: &Set) -> i32 {
    if model.facts.replicas == 0 {
        return -set.replicas;
    }
    let max = f64::from(model.facts.replicas + model.facts.max_surge());
    let before = set.number_annotation(MAX_REPLICAS).filter(|before| *before != 0);
    let before = before.unwrap_or_else(|| model.facts.status_number("replicas"));
    if before == 0 {
        return 0;
    }
    (f64::from(set.replicas) * max / f64::from(before)).round() as i32 - set.replicas
}
