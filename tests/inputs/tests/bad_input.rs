//! Bad input: every sort of request that upstream refuses, and the same answer from us, word for word.

macro_rules! transcripts {
    ($($test:ident: $file:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            if let Err(error) = inputs::play($file).await {
                panic!("{error:#}");
            }
        }
    )*};
}

transcripts! {
    bodies_that_cannot_be_read_are_refused: "bodies";
    fields_nobody_knows_are_refused_warned_about_or_ignored: "fields";
    objects_that_make_no_sense_are_refused_field_by_field: "objects";
    queries_that_make_no_sense_are_refused: "queries";
    patches_that_make_no_sense_are_refused: "patches";
    updates_and_deletes_that_do_not_fit_are_refused: "writes";
    paths_and_verbs_that_are_not_served_are_refused: "paths";
    callers_nobody_knows_are_refused: "callers";
}
