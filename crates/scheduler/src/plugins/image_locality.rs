//! A node that holds the images already starts sooner. The more nodes hold an image the more it counts, so that one lucky node
//! does not draw everything.

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Candidate, Plugin, SCORE_MAX};
use crate::pod_info::PodInfo;

pub struct ImageLocality;

const MIB: i64 = 1024 * 1024;
/// Less than this is not worth a point.
const BYTES_MIN: i64 = 23 * MIB;
/// Per container; more than this brings no further points.
const BYTES_MAX: i64 = 1000 * MIB;

/// A tag-less name means `latest`.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_string() } else { format!("{image}:latest") }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, on: Candidate<'_>, cache: &Cache) -> i64 {
        let nodes = cache.len().max(1) as f64;
        let held = pod.images.iter().filter_map(|image| {
            let name = normalized(image);
            let size = *on.facts.images.get(&name)?;
            Some((size as f64 * cache.nodes_with_image(&name) as f64 / nodes) as i64)
        });
        let most = BYTES_MAX * i64::try_from(pod.images.len().max(1)).unwrap_or(1);
        let bytes = held.sum::<i64>().clamp(BYTES_MIN, most);
        SCORE_MAX * (bytes - BYTES_MIN) / (most - BYTES_MIN)
    }

    fn is_helped_by(&self, _: &PodInfo, _: &Event) -> bool {
        false
    }
}
