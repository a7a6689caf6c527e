DROP FUNCTION change_vendor, vendor_signal, plain_reason, vendor_room, take_send_permit, admit, vendor_least_cost, vendor_stop_new, vendor_stop,
    vendor_tokens, vendor_spent_today, vendor_cap, vendor_in_flight;
DROP VIEW cost_days;
DROP FUNCTION submission_cost;
ALTER TABLE submissions DROP COLUMN user_id;
ALTER TABLE vendors
    DROP COLUMN max_in_flight, DROP COLUMN max_per_minute, DROP COLUMN burst, DROP COLUMN daily_budget,
    DROP COLUMN balance_floor, DROP COLUMN held_until, DROP COLUMN held_reason, DROP COLUMN held_by, DROP COLUMN pause_kind,
    DROP COLUMN tokens, DROP COLUMN refilled_at, DROP COLUMN slots, DROP COLUMN slots_until, DROP COLUMN balance_until,
    DROP COLUMN failures, DROP COLUMN reject_reason, DROP COLUMN reject_job, DROP COLUMN rejects, DROP COLUMN open_kind, DROP COLUMN opened_at,
    DROP COLUMN open_until, DROP COLUMN open_reason, DROP COLUMN openings, DROP COLUMN probe_token, DROP COLUMN probe_until;
DROP TABLE operator_events;
