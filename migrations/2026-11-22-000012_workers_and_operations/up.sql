-- Who works, and what operators do to many at once.

-- One row per running worker, written by itself every few seconds and removed when it stops. Nothing is decided by it: a row that
-- is old says that its worker was killed or cannot reach the database.
CREATE TABLE workers (
    -- One for each start of a process.
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- How often it means to be seen, in milliseconds: after three times that it is lost.
    beat_ms bigint NOT NULL CHECK (beat_ms > 0),
    draining boolean NOT NULL,
    stages text[] NOT NULL,
    -- Messages in hand at a time, for each stage; of stages that move whole videos.
    concurrency integer NOT NULL,
    transfers integer NOT NULL,
    -- [{"stage": "…", "count": 1}], those with something in hand.
    in_hand jsonb NOT NULL,
    -- By the worker's clock.
    last_delivery_at timestamptz,
    -- Null: it is ready.
    why_not_ready text
) WITH (fillfactor = 50);

-- Work on a selection of jobs or dead letters, carried out piece by piece: a piece and the progress are one transaction, under the
-- lock of the row, so that one producer at a time does it and one that is killed has done nothing of its piece.
CREATE TABLE operations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL CHECK (action IN ('cancel', 'retry', 'resume', 'replay', 'discard')),
    -- Which jobs or letters: what `JobFilter` or `LetterFilter` reads.
    filter jsonb NOT NULL,
    actor text NOT NULL CHECK (actor <> ''),
    reason text NOT NULL CHECK (reason <> ''),
    another_attempt boolean NOT NULL,
    canary boolean NOT NULL,
    per_minute integer CHECK (per_minute >= 1),
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'awaiting', 'done', 'stopped', 'failed')),
    -- What the selection had when it began; `capped`: at least so many.
    total bigint NOT NULL,
    capped boolean NOT NULL,
    -- Looked at, and of these changed; those that were not, by why.
    done bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0,
    refused jsonb NOT NULL DEFAULT '{}',
    -- Where it goes on: the last job or letter that was looked at.
    position jsonb,
    -- The first of each group, once they are replayed.
    canaries jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When its next piece is done.
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    error text,
    CONSTRAINT finished_when_it_is_over CHECK ((state IN ('done', 'stopped', 'failed')) = (finished_at IS NOT NULL)),
    CONSTRAINT an_error_when_it_failed CHECK ((state = 'failed') = (error IS NOT NULL)),
    CONSTRAINT canaries_of_a_replay CHECK (NOT canary OR action = 'replay')
);
CREATE INDEX operations_due ON operations (due_at) WHERE state = 'running';

-- The trail of operators, newest first. The table is small: operators write it, and accounts that stop.
CREATE INDEX operator_events_page ON operator_events (at, id);
