//! The tables as diesel sees them; `migrations/` is what they are.

diesel::table! {
    video_jobs (id) {
        id -> Uuid,
        user_id -> Uuid,
        original_filename -> Varchar,
        display_name -> Nullable<Varchar>,
        status -> Varchar,
        is_pro_job -> Bool,
        progress_percentage -> Nullable<Int4>,
        progress_message -> Nullable<Text>,
        processing_config -> Nullable<Jsonb>,
        segments_data -> Nullable<Jsonb>,
        job_metadata -> Nullable<Jsonb>,
        output_url -> Nullable<Varchar>,
        queued_at -> Nullable<Timestamp>,
        created_at -> Nullable<Timestamp>,
        updated_at -> Nullable<Timestamp>,
        completed_at -> Nullable<Timestamp>,
        error_message -> Nullable<Text>,
        error_code -> Nullable<Varchar>,
    }
}

diesel::table! {
    job_stages (job_id) {
        job_id -> Uuid,
        stage -> Text,
        epoch -> Int8,
        state -> Text,
        due_at -> Nullable<Timestamptz>,
        tries -> Int4,
        starts -> Int4,
        priority -> Int2,
        fairness_key -> Uuid,
        reason -> Nullable<Text>,
        entered_at -> Timestamptz,
        dispatched_at -> Nullable<Timestamptz>,
        started_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    submissions (token) {
        token -> Uuid,
        job_id -> Uuid,
        vendor -> Text,
        account -> Text,
        attempt -> Int4,
        state -> Text,
        imported -> Bool,
        vendor_task_id -> Nullable<Text>,
        vendor_project_id -> Nullable<Text>,
        work_state -> Nullable<Text>,
        source_key -> Nullable<Text>,
        source_deleted_at -> Nullable<Timestamptz>,
        claimed_at -> Timestamptz,
        send_deadline -> Timestamptz,
        settled_at -> Nullable<Timestamptz>,
        searches -> Int4,
        last_searched_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    job_events (id) {
        id -> Int8,
        job_id -> Uuid,
        at -> Timestamptz,
        kind -> Text,
        actor -> Text,
        stage -> Nullable<Text>,
        epoch -> Nullable<Int8>,
        token -> Nullable<Uuid>,
        detail -> Jsonb,
        metadata_changed -> Nullable<Jsonb>,
    }
}

diesel::table! {
    job_requests (user_id, idempotency_key) {
        user_id -> Uuid,
        idempotency_key -> Text,
        request_sha256 -> Bytea,
        job_id -> Uuid,
    }
}

diesel::table! {
    settings (name) {
        name -> Text,
        value -> Jsonb,
        changed_at -> Timestamptz,
        changed_by -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(video_jobs, job_stages,);
