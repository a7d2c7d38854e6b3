//! What is tested, each a sentence.

mod confinement;
mod images;
mod lifecycle;
mod streams;

use crate::node::{Case, Node};

macro_rules! cases {
    ($($group:ident { $($name:ident),* $(,)? })*) => {
        pub const ALL: &[(&str, Case)] = &[$($((stringify!($name), |node: Node| Box::pin($group::$name(node)))),*),*];
    };
}

cases! {
    lifecycle {
        runs_a_container_and_logs_what_it_says,
        a_missing_program_is_a_start_error_in_upstreams_words,
        stops_by_asking_then_by_killing,
        a_signal_that_comes_before_its_handler_is_not_lost,
        an_ended_container_is_seen_after_a_restart_and_logs_are_unbroken,
        a_dead_shim_ends_its_pod,
        a_container_out_of_memory_says_so,
        limits_are_set_and_can_be_changed,
        events_tell_the_whole_story_in_order,
        a_failed_network_leaves_nothing,
        sandboxes_and_containers_can_be_removed_twice,
        logs_go_on_after_rotation,
        use_is_measured,
        metrics_tell_of_throttling_under_known_names,
        containers_live_in_the_unified_hierarchy_too,
        starts_quickly,
    }
    confinement {
        users_and_groups_come_from_the_image_and_the_pod,
        capabilities_and_system_calls_are_limited,
        the_host_is_hidden,
        privileged_containers_see_the_hosts_devices,
        devices_outside_the_list_cannot_be_opened,
        namespaces_are_shared_as_asked,
        volumes_are_mounted_as_asked,
        image_volumes_are_read_only,
        the_runtimes_program_cannot_be_overwritten,
        sysctls_and_resolver_are_the_pods,
    }
    streams {
        exec_runs_beside_the_container,
        exec_that_takes_too_long_is_killed,
        exec_streams_both_ways,
        exec_has_a_terminal_that_can_be_resized,
        attach_feeds_and_follows_the_container,
        ports_are_forwarded_to_the_pods_loopback,
    }
    images {
        layers_are_merged_and_whiteouts_hide,
        pulls_with_a_token_and_unpacks_every_compression,
        mirrors_are_tried_before_the_registry,
        a_registrys_refusal_is_passed_on,
        corrupt_content_is_refused_and_leaves_nothing,
        images_are_listed_found_and_removed,
        imports_what_docker_saves,
    }
}
