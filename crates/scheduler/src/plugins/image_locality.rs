//! A node that holds the images already starts sooner. The more nodes hold an image the more it counts, so that one lucky node
//! does not draw everything.

use crate::cache::Cache;
use crate::events::Event;
use crate::plugin::{Plugin, SCORE_MAX, Score};
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

    fn score<'a>(&self, pod: &'a PodInfo, cache: &'a Cache) -> Option<Score<'a>> {
        let nodes = cache.len().max(1) as f64;
        let names = pod.images.iter().map(|image| normalized(image));
        let on_nodes = names.map(|name| (cache.nodes_with_image(&name) as f64, name));
        let present: Vec<(f64, String)> = on_nodes.filter(|(holders, _)| *holders > 0.0).collect();
        if present.is_empty() {
            return None;
        }
        let most = BYTES_MAX * i64::try_from(pod.images.len().max(1)).unwrap_or(1);
        Some(Box::new(move |on| {
            let held = present.iter().filter_map(|(holders, name)| {
                let size = *on.facts.images.get(name)?;
                Some((size as f64 * holders / nodes) as i64)
            });
            let bytes = held.sum::<i64>().clamp(BYTES_MIN, most);
            SCORE_MAX * (bytes - BYTES_MIN) / (most - BYTES_MIN)
        }))
    }

    fn is_helped_by(&self, _: &PodInfo, _: &Event) -> bool {
        false
    }
}
