-- DuckDB views over the lake, one for each table, and the costs as a FOCUS-style table for finance tools.
--
--   duckdb -cmd "SET VARIABLE data_root = 'data/demo'" -init lake.sql
--
-- Without the variable the lake is `data` below the current folder; `s3://bucket/prefix` works after DuckDB's own
-- set-up of S3. Days are read as `start_date` from the paths; rows without a day have a null there. In Python:
--
--   lake = duckdb.connect()
--   lake.execute("SET VARIABLE data_root = 'data/demo'")
--   lake.execute(importlib.resources.files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())

SET VARIABLE data_root = coalesce(getvariable('data_root'), 'data');
SET TimeZone = 'UTC';

-- Any table that is partitioned by day, by its name. A table that a job of its own makes has no view, because a view of
-- files that are not there yet can't be made: `FROM usage_of('daily_cost_by_project')`. The days are read as text and cast
-- here: before 1.5, DuckDB takes the folder of rows without a day for text that compares greater than any date.
CREATE OR REPLACE MACRO days_of(folder) AS TABLE
SELECT * REPLACE (try_cast(start_date AS DATE) AS start_date)
FROM read_parquet(
    -- A folder such as `start_date=20260131`, a second spelling of a day, is not the lake's.
    getvariable('data_root') || '/' || folder || '/start_date=*[-_]*/*.parquet',
    hive_partitioning = true,
    hive_types_autocast = false
);
CREATE OR REPLACE MACRO usage_of(folder) AS TABLE FROM read_parquet(
    getvariable('data_root') || '/' || folder || '/*/*.parquet',
    hive_partitioning = true
);
CREATE OR REPLACE MACRO file_of(folder) AS TABLE FROM read_parquet(
    getvariable('data_root') || '/' || folder || '/*.parquet'
);

-- Views of the tables, written by docs/generate.py.
CREATE OR REPLACE VIEW raw_sessions AS FROM days_of('raw_sessions');
CREATE OR REPLACE VIEW sessions AS FROM days_of('sessions');
CREATE OR REPLACE VIEW rejected_sessions AS FROM days_of('rejected_sessions');
CREATE OR REPLACE VIEW session_feedback AS FROM days_of('session_feedback');
CREATE OR REPLACE VIEW experiment_summary AS FROM days_of('experiment_summary');
CREATE OR REPLACE VIEW daily_cost_by_reference_dataset AS FROM days_of('daily_cost_by_reference_dataset');
CREATE OR REPLACE VIEW weekly_cost_by_reference_dataset AS FROM file_of('weekly_cost_by_reference_dataset');
CREATE OR REPLACE VIEW monthly_cost_by_reference_dataset AS FROM file_of('monthly_cost_by_reference_dataset');
-- End of the views.

-- FOCUS (FinOps Open Cost and Usage Specification) column names, one row per experiment, charged to the UTC day it
-- started. Period ends are exclusive. FOCUS allows no null cost, this view does: a null is a cost that is unknown,
-- not zero. Who sends the invoice is not known here: the costs are what LangSmith computed from the models' prices.
-- Columns that FOCUS does not name begin with `x_`.
CREATE OR REPLACE VIEW focus_costs AS
SELECT
    total_cost AS BilledCost,
    total_cost AS EffectiveCost,
    total_cost AS ListCost,
    total_cost AS ContractedCost,
    'USD' AS BillingCurrency,
    date_trunc('month', start_date)::TIMESTAMP AT TIME ZONE 'UTC' AS BillingPeriodStart,
    (date_trunc('month', start_date) + INTERVAL 1 MONTH)::TIMESTAMP AT TIME ZONE 'UTC' AS BillingPeriodEnd,
    start_date::TIMESTAMP AT TIME ZONE 'UTC' AS ChargePeriodStart,
    (start_date + INTERVAL 1 DAY)::TIMESTAMP AT TIME ZONE 'UTC' AS ChargePeriodEnd,
    'Usage' AS ChargeCategory,
    NULL::VARCHAR AS ChargeClass,
    'Usage-Based' AS ChargeFrequency,
    'Model calls of the experiment ' || coalesce(name, id) AS ChargeDescription,
    'AI and Machine Learning' AS ServiceCategory,
    'Generative AI' AS ServiceSubcategory,
    'LangSmith experiments' AS ServiceName,
    'LangSmith' AS ProviderName,
    'LangChain' AS PublisherName,
    NULL::VARCHAR AS InvoiceIssuerName,
    NULL::VARCHAR AS BillingAccountId,
    tenant_id AS SubAccountId,
    id AS ResourceId,
    name AS ResourceName,
    'Experiment' AS ResourceType,
    total_tokens AS ConsumedQuantity,
    'Tokens' AS ConsumedUnit,
    reference_dataset_id AS x_ReferenceDatasetId,
    prompt_cost AS x_PromptCost,
    completion_cost AS x_CompletionCost,
    run_count AS x_RunCount
FROM sessions
WHERE reference_dataset_id IS NOT NULL AND start_date IS NOT NULL;
