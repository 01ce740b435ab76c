/* Component schemas of openapi.json: the answers of the Oz face. */
#include "face/oz/oz.h"

#define STR     "{\"type\":\"string\"}"
#define STRN    "{\"type\":[\"string\",\"null\"]}"
#define TIME    "{\"type\":\"string\",\"format\":\"date-time\"}"
#define TIMEN   "{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"}"
#define INT     "{\"type\":\"integer\"}"
#define BOOL    "{\"type\":\"boolean\"}"
#define REF(n)  "{\"$ref\":\"#/components/schemas/" n "\"}"
#define LIST(n) "{\"type\":\"array\",\"items\":" n "}"
#define STATE                                                                                      \
    "{\"type\":\"string\",\"enum\":[\"QUEUED\",\"PENDING\",\"CLAIMED\",\"INPROGRESS\","            \
    "\"SUCCEEDED\",\"FAILED\",\"CANCELLED\"]}"

const char *const mu_oz_components[] = {
    "RunCreated",
    "{\"type\":\"object\",\"required\":[\"run_id\",\"task_id\",\"state\",\"request_id\"],"
    "\"properties\":{\"run_id\":" STR ",\"task_id\":" STR ",\"state\":" STATE ",\"request_id\":" STR
    "}}",
    "Run",
    "{\"type\":\"object\",\"required\":[\"run_id\",\"task_id\",\"created_at\",\"updated_at\","
    "\"prompt\",\"title\",\"state\","
    "\"session_link\",\"artifacts\",\"conversation_id\",\"agent_config\",\"source\",\"status_"
    "message\"],\"properties\":{\"run_id\":" STR ",\"task_id\":" STR ",\"state\":" STATE
    ",\"title\":" STR ",\"prompt\":" STR ",\"prompt_truncated\":" BOOL ",\"created_at\":" TIME
    ",\"updated_at\":" TIME ",\"started_at\":" TIMEN ",\"completed_at\":" TIMEN
    ",\"session_link\":" STRN ",\"artifacts\":{\"type\":\"array\"},\"conversation_id\":" STRN
    ",\"agent_config\":{\"type\":\"object\"},\"schedule\":{\"type\":\"object\"},\"source\":" STR
    ",\"status_message\":{\"type\":[\"object\",\"null\"],\"properties\":{\"message\":" STR
    "}},\"error\":{\"type\":[\"object\",\"null\"],\"properties\":{\"code\":" STR ",\"message\":" STR
    "}},\"output\":" STR ",\"output_truncated\":" BOOL
    ",\"exit_code\":{\"type\":[\"integer\",\"null\"]},\"usage\":{\"type\":\"object\","
    "\"properties\":{\"input_tokens\":" INT ",\"output_tokens\":" INT "}},\"harness\":" STR
    ",\"provider\":{\"type\":[\"object\",\"null\"]},\"worker_id\":" STRN
    ",\"is_sandbox_running\":" BOOL
    ",\"agent_skill\":{\"type\":\"object\"},\"creator\":{\"type\":\"object\"},\"scope\":{\"type\":"
    "\"object\"},\"request_id\":" STR "}}",
    "WorkerList",
    "{\"type\":\"object\",\"required\":[\"workers\",\"total\",\"connected\"],\"properties\":{"
    "\"workers\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":[\"id\","
    "\"connected\"],\"properties\":{\"id\":" STR ",\"uid\":" STR ",\"dialect\":" STR
    ",\"connected\":" BOOL ",\"draining\":" BOOL ",\"saturated\":" BOOL ",\"since\":" TIMEN
    ",\"last_seen\":" TIMEN ",\"in_flight\":" INT ",\"capacity\":" INT ",\"conflicts\":" INT
    ",\"version\":" STR ",\"capabilities\":{\"type\":\"object\"}}}},\"total\":" INT
    ",\"connected\":" INT ",\"request_id\":" STR "}}",
    "RunList",
    "{\"type\":\"object\",\"required\":[\"runs\",\"page_info\",\"next_cursor\",\"request_id\"],"
    "\"properties\":{\"runs\":" LIST(REF("Run")) ",\"items\":" LIST(
        REF("Run")) ",\"page_info\":{\"type\":\"object\",\"required\":[\"has_next_page\"],"
                    "\"properties\":{\"has_next_page\":" BOOL ",\"next_cursor\":" STR
                    "}},\"next_cursor\":" STRN ",\"request_id\":" STR "}}",
    "RunFiles",
    "{\"type\":\"object\",\"required\":[\"files\"],\"properties\":{\"files\":{\"type\":\"array\","
    "\"items\":"
    "{\"type\":\"object\",\"required\":[\"name\",\"media_type\",\"bytes\"],\"properties\":{"
    "\"name\":" STR ",\"media_type\":" STR ",\"bytes\":" INT ",\"sha256\":" STR
    ",\"created_at\":" TIME "}}},\"request_id\":" STR "}}",
    "RunId",
    STR,
    "AgentList",
    "{\"type\":\"object\",\"required\":[\"agents\",\"items\"],\"properties\":{\"agents\":" LIST(REF(
        "Agent")) ",\"items\":" LIST(REF("Agent")) ",\"unavailable\":" LIST("{\"type\":\"object\","
                                                                            "\"properties\":{"
                                                                            "\"repo\":" STR
                                                                            ",\"message\":" STR
                                                                            "}}") ",\"truncated\""
                                                                                  ":" BOOL
                                                                                  ",\"request_"
                                                                                  "id\":" STR "}}",
    "Agent",
    "{\"type\":\"object\",\"required\":[\"name\",\"variants\"],\"properties\":{\"name\":" STR
    ",\"variants\":" LIST(
        "{\"type\":\"object\",\"required\":[\"id\",\"base_prompt\",\"description\","
        "\"environments\",\"source\"],\"properties\":{\"id\":" STR ",\"base_prompt\":" STR
        ",\"description\":" STR ",\"environments\":" LIST(
            "{\"type\":\"object\",\"properties\":{\"uid\":" STR ",\"name\":" STR
            "}}") ",\"source\":{\"type\":\"object\",\"properties\":{\"owner\":" STR ",\"name\":" STR
                  ",\"skill_path\":" STR "}},\"last_run_timestamp\":" TIMEN "}}") "}}",
    "Environment",
    "{\"type\":\"object\",\"required\":[\"environment_id\",\"id\",\"name\",\"docker_image\","
    "\"repos\",\"setup_commands\",\"env_vars\","
    "\"secrets\",\"scope\",\"created_at\",\"updated_at\"],\"properties\":{\"environment_id\":" STR
    ",\"id\":" STR ",\"name\":" STR ",\"docker_image\":" STR
    ",\"repos\":" LIST(STR) ",\"setup_commands\":" LIST(STR) ",\"secrets\":" LIST(
        STR) ",\"env_vars\":{\"type\":\"object\",\"additionalProperties\":" STR
             "},\"sandbox\":{\"type\":\"object\"}"
             ",\"scope\":{\"type\":\"string\",\"enum\":[\"OWNER\",\"GLOBAL\"]},\"created_"
             "at\":" TIME ",\"updated_at\":" TIME ",\"request_id\":" STR "}}",
    "EnvironmentList",
    "{\"type\":\"object\",\"required\":[\"items\",\"environments\",\"next_cursor\"],\"properties\":"
    "{\"items\":" LIST(REF("Environment")) ",\"environments\":" LIST(
        REF("Environment")) ",\"next_cursor\":" STRN ",\"request_id\":" STR "}}",
    "Schedule",
    "{\"type\":\"object\",\"required\":[\"id\",\"name\",\"prompt\",\"cron_schedule\",\"enabled\","
    "\"created_at\",\"updated_at\"],"
    "\"properties\":{\"id\":" STR ",\"name\":" STR ",\"prompt\":" STR ",\"cron_schedule\":" STR
    ",\"enabled\":" BOOL ",\"created_at\":" TIME ",\"updated_at\":" TIME
    ",\"agent_config\":{\"type\":\"object\"},\"environment\":{\"type\":\"object\","
    "\"properties\":{\"name\":" STR ",\"docker_image\":" STR
    ",\"github_repos\":" LIST("{\"type\":\"object\"}") ",\"setup_commands\":" LIST(
        STR) "}},"
             "\"history\":{\"type\":\"object\",\"properties\":{"
             "\"last_ran\":" TIMEN ",\"next_run\":" TIMEN "}},\"last_spawn_error\":" STRN
             ",\"scope\":{\"type\":\"object\"},\"created_by\":{\"type\":\"object\"},"
             "\"prompt_truncated\":" BOOL ",\"request_id\":" STR "}}",
    "ScheduleList",
    "{\"type\":\"object\",\"required\":[\"schedules\"],\"properties\":{\"schedules\":" LIST(
        REF("Schedule")) ",\"request_id\":" STR "}}",
    "ProviderList",
    "{\"type\":\"object\",\"required\":[\"providers\"],\"properties\":{\"providers\":{\"type\":"
    "\"array\",\"items\":{\"type\":\"object\","
    "\"required\":[\"key\",\"type\",\"model\",\"breaker\"],\"properties\":{\"key\":" STR
    ",\"type\":" STR ",\"model\":" STRN ",\"discovered\":" BOOL ",\"found\":" STRN
    ",\"limit\":{\"type\":[\"integer\",\"null\"]},\"window_seconds\":" INT ",\"quota_scope\":" STR
    ",\"used\":" INT ",\"resets_at\":" TIMEN ",\"blocked_until\":" TIMEN ",\"breaker\":" STR
    ",\"running\":" INT ",\"max_parallel\":" INT "}}},\"request_id\":" STR "}}",
    "AdminKey",
    "{\"type\":\"object\",\"required\":[\"key\"],\"properties\":{\"key\":" STR
    ",\"request_id\":" STR "}}",
    NULL};
