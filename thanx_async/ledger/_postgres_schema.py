"""The tables of ledgers and outboxes in PostgreSQL, in the schema ``thanx``."""

from __future__ import annotations

from thanx_async._core.postgres import Tables

LEDGER_TABLES = Tables(
    "ledger",
    (
        """
        CREATE TABLE thanx.runs (
            run_id text PRIMARY KEY,
            base_url text NOT NULL,
            client_id text NOT NULL,
            campaign_id text NOT NULL,
            merchant_id text NOT NULL,
            variant_id text NOT NULL,
            batch_size integer NOT NULL,
            deduplicate boolean NOT NULL,
            canary integer,
            created_at double precision NOT NULL,
            changed_at double precision NOT NULL,
            total bigint,
            batches integer,
            revoked_at double precision,
            owner text,
            owned_until timestamptz
        );
        CREATE TABLE thanx.forgotten (run_id text PRIMARY KEY, ended_at double precision NOT NULL);
        CREATE TABLE thanx.batches (
            run_id text NOT NULL REFERENCES thanx.runs,
            number integer NOT NULL,
            key text NOT NULL,
            first bigint NOT NULL,
            count integer NOT NULL,
            gaps bytea NOT NULL,
            digest bytea NOT NULL,
            state text NOT NULL,
            recorded_at double precision NOT NULL,
            job_id text,
            outcome bytea,
            issued integer,
            is_revoked boolean NOT NULL DEFAULT false,
            body bytea,
            seqs int8multirange,
            PRIMARY KEY (run_id, number)
        );
        ALTER TABLE thanx.batches ALTER COLUMN body SET STORAGE EXTERNAL;
        CREATE INDEX batches_open ON thanx.batches (run_id, number) WHERE state <> 'finished';
        CREATE INDEX batches_jobs ON thanx.batches (job_id) WHERE job_id IS NOT NULL;
        CREATE INDEX batches_seqs ON thanx.batches USING gist (seqs);
        CREATE TABLE thanx.lanes (
            lane integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            run_id text NOT NULL UNIQUE REFERENCES thanx.runs,
            target text NOT NULL UNIQUE,
            next_number integer NOT NULL DEFAULT 0,
            note text,
            noted_until timestamptz
        );
        CREATE TABLE thanx.guests (
            seq bigint GENERATED ALWAYS AS IDENTITY,
            put_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            id uuid PRIMARY KEY,
            lane integer NOT NULL,
            digest bigint NOT NULL
        );
        CREATE INDEX guests_times ON thanx.guests USING brin (put_at);
        CREATE TABLE thanx.waiting (
            lane integer NOT NULL,
            seq bigint NOT NULL,
            value text NOT NULL,
            put_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (lane, seq)
        ) WITH (
            autovacuum_vacuum_scale_factor = 0,
            autovacuum_vacuum_threshold = 10000,
            autovacuum_vacuum_cost_delay = 0
        );
        CREATE TABLE thanx.ended (seq bigint PRIMARY KEY, state text NOT NULL, reason text);
        CREATE TABLE thanx.heard (job_id text PRIMARY KEY);
        CREATE FUNCTION thanx.put(a_lane integer, an_id uuid, a_digest bigint, a_value text) RETURNS boolean
        LANGUAGE plpgsql AS $$
        DECLARE
            a_seq bigint;
        BEGIN
            IF EXISTS (SELECT FROM thanx.lanes JOIN thanx.runs USING (run_id)
                       WHERE lane = a_lane AND revoked_at IS NOT NULL) THEN
                RAISE EXCEPTION 'the outbox was revoked' USING ERRCODE = 'TX002';
            END IF;
            INSERT INTO thanx.guests (id, lane, digest) VALUES (an_id, a_lane, a_digest)
            ON CONFLICT (id) DO NOTHING RETURNING seq INTO a_seq;
            IF a_seq IS NOT NULL THEN
                INSERT INTO thanx.waiting (lane, seq, value) VALUES (a_lane, a_seq, a_value);
            ELSIF EXISTS (SELECT FROM thanx.guests WHERE id = an_id AND digest <> a_digest) THEN
                RAISE EXCEPTION 'this id was put before, with another guest' USING ERRCODE = 'TX001';
            END IF;
            RETURN a_seq IS NOT NULL;
        END
        $$
        """,
        """
        ALTER TABLE thanx.runs ADD COLUMN keep_ids double precision;
        ALTER TABLE thanx.runs ADD COLUMN replay_within double precision;
        ALTER TABLE thanx.batches ADD COLUMN held text;
        ALTER TABLE thanx.lanes ADD COLUMN issued bigint NOT NULL DEFAULT 0;
        UPDATE thanx.lanes SET issued = coalesce(
            (SELECT sum(b.issued) FROM thanx.batches AS b WHERE b.run_id = lanes.run_id), 0);
        CREATE INDEX batches_first ON thanx.batches (run_id, first) WHERE seqs IS NOT NULL;
        CREATE INDEX guests_seqs ON thanx.guests USING brin (seq) WITH (autosummarize = on)
        """,
        """
        CREATE TABLE thanx.trust (
            base_url text NOT NULL,
            client_id text NOT NULL,
            confirmed bigint NOT NULL,
            with_failures bigint NOT NULL,
            broken boolean NOT NULL,
            PRIMARY KEY (base_url, client_id)
        );
        CREATE TABLE thanx.events (
            job_id text PRIMARY KEY,
            heard_at double precision NOT NULL,
            told bytea NOT NULL
        )
        """,
        """
        CREATE TABLE thanx.choices (
            guest bytea,
            run_id text,
            position bigint NOT NULL,
            PRIMARY KEY (guest, run_id)
        );
        CREATE INDEX choices_positions ON thanx.choices (run_id, position)
        """,
    ),
)
