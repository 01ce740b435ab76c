#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "exec/agents/opencode.h"

/* What the server was asked and what the caller was told, as one text. */
struct heard {
    struct mu_buf log;
    struct mu_oc oc;
    int decision; /* to every permission at once: mu_acp_decision, -1 = none */
    const char *words, *reply;
    const char *prompt; /* to be said when it is ready */
    int fail_call;
};

static MU_PRINTF(2, 3) void note(struct heard *h, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mu_buf_add_str(&h->log, text);
}

static int on_call(void *arg, enum mu_oc_call call, const char *method, const char *path,
                   mu_bytes body)
{
    struct heard *h = arg;
    (void)call;
    note(h, "%s %s %.*s\n", method, path, (int)MU_MIN(body.len, (size_t)1000),
         body.ptr ? body.ptr : "");
    return h->fail_call;
}

static void on_listen(void *arg)
{
    note(arg, "listen\n");
}

static void on_question(void *arg, const struct mu_oc_question *q)
{
    struct heard *h = arg;
    note(h, "question(%u %.*s %.*s%s)\n", q->handle, MU_ARGS(q->text), MU_ARGS(q->options),
         q->multiple ? " multiple" : "");
    if (h->reply) {
        (void)!mu_oc_reply(&h->oc, q->handle, mu_str(h->reply));
    }
}

static void on_foreign(void *arg, unsigned handle)
{
    note(arg, "foreign(%u)\n", handle);
}

static void on_ready(void *arg, const struct mu_acp_info *i)
{
    struct heard *h = arg;
    note(h, "ready(%.*s %.*s %.*s%s%s%.*s)\n", MU_ARGS(i->agent), MU_ARGS(i->version),
         MU_ARGS(i->conversation), i->resumed ? " resumed" : "", i->not_loaded.ptr ? " not:" : "",
         MU_ARGS(i->not_loaded));
    if (h->prompt) {
        (void)!mu_oc_prompt(&h->oc, mu_str(h->prompt));
    }
}

static void on_text(void *arg, bool thought, mu_bytes text)
{
    note(arg, "%s(%.*s)\n", thought ? "thought" : "text", MU_ARGS(text));
}

static void on_tool(void *arg, const struct mu_acp_tool *t)
{
    note(arg, "tool(%s %s %s '%s' %d args=%.*s result=%.*s", t->id, t->name, t->kind, t->title,
         t->status, MU_ARGS(mu_buf_bytes(&t->args)), (int)MU_MIN(t->result.len, (size_t)100),
         t->result.ptr ? t->result.ptr : "");
    for (size_t i = 0; i < t->n_paths; i++) {
        note(arg, " %s", t->paths[i]);
    }
    note(arg, ")\n");
}

static void on_ask(void *arg, const struct mu_acp_ask *a)
{
    struct heard *h = arg;
    note(h, "ask(%u %s %s '%s' command=%.*s url=%.*s%s", a->handle, a->tool->id, a->tool->kind,
         a->tool->title, MU_ARGS(a->command), MU_ARGS(a->url), a->subject.ptr ? " same" : "");
    for (size_t i = 0; i < a->tool->n_paths; i++) {
        note(arg, " %s", a->tool->paths[i]);
    }
    note(arg, ")\n");
    if (h->decision >= 0) {
        (void)!mu_oc_decide(&h->oc, a->handle, (enum mu_acp_decision)h->decision, h->words);
    }
}

static void on_gone(void *arg, unsigned handle)
{
    note(arg, "gone(%u)\n", handle);
}

static void on_update(void *arg, mu_bytes kind, mu_bytes json)
{
    note(arg, "update(%.*s %.*s)\n", MU_ARGS(kind), MU_ARGS(json));
}

static void on_turn(void *arg, enum mu_acp_outcome o, mu_bytes reason, const struct mu_acp_usage *u)
{
    note(arg, "turn(%d %.*s %d %d)\n", (int)o, MU_ARGS(reason), (int)u->tokens_in,
         (int)u->tokens_out);
}

static const struct mu_acp_ops tell = {.ready = on_ready,
                                       .text = on_text,
                                       .tool = on_tool,
                                       .ask = on_ask,
                                       .ask_gone = on_gone,
                                       .update = on_update,
                                       .turn = on_turn};
static const struct mu_oc_ops ops = {on_call, on_listen, on_question, on_foreign};
static const struct mu_acp_options new_one = {"/workspace", NULL, NULL, "1", NULL};
static const struct mu_acp_options old_one = {"/workspace", "ses_old", NULL, "1", NULL};

static int begin(struct heard *h, const struct mu_acp_options *opt, const char *model)
{
    *h = (struct heard){.decision = -1};
    mu_buf_init(&h->log, 16 << 20);
    int r = mu_oc_init(&h->oc, &tell, &ops, h, opt, model);
    return r ? r : mu_oc_start(&h->oc);
}

static void end(struct heard *h)
{
    mu_oc_fini(&h->oc);
    mu_buf_fini(&h->log);
}

static int answer(struct heard *h, enum mu_oc_call call, int status, const char *body)
{
    return mu_oc_answer(&h->oc, call, status, mu_str(body));
}

/* One event of our conversation; `'` stands for `"`. */
static int event(struct heard *h, const char *type, const char *properties)
{
    static char text[128 << 10];
    int n = snprintf(text, sizeof text,
                     "{'id':'evt_1','type':'%s','properties':{'sessionID':'ses_1'%s%s}}", type,
                     *properties ? "," : "", properties);
    for (int i = 0; i < n; i++) {
        text[i] = text[i] == '\'' ? '"' : text[i];
    }
    return mu_oc_event(&h->oc, mu_str(text));
}

static void expect_log(struct heard *h, const char *want)
{
    mu_buf_add_char(&h->log, 0);
    assert_string_equal(h->log.ptr, want);
    mu_buf_clear(&h->log);
}

#define PROMPTED                                                                                   \
    "POST /session/ses_1/prompt_async {\"parts\":[{\"type\":\"text\",\"text\":\"do it\"}]}\n"
#define USER  "'info':{'id':'msg_1','role':'user'}"
#define AGENT "'info':{'id':'msg_2','role':'assistant','parentID':'msg_1','time':{'created':1}}"
#define AGENT_DONE                                                                                 \
    "'info':{'id':'msg_2','role':'assistant','parentID':'msg_1','finish':'stop',"                  \
    "'time':{'created':1,'completed':2}}"
#define BUSY "'status':{'type':'busy'}"
#define IDLE "'status':{'type':'idle'}"

static int connect_(struct heard *h)
{
    int r = answer(h, MU_OC_HEALTH, 200, "{\"healthy\":true,\"version\":\"1.18.33\"}");
    return r ? r : event(h, "server.connected", "");
}

static int prepare(struct heard *h)
{
    int r = begin(h, &new_one, NULL);
    r = r ? r : connect_(h);
    return r ? r : answer(h, MU_OC_CREATE, 200, "{\"id\":\"ses_1\"}");
}

/* A turn that has begun. */
static int prompt(struct heard *h)
{
    int r = mu_oc_prompt(&h->oc, MU_B("do it"));
    r = r ? r : answer(h, MU_OC_PROMPT, 204, "");
    r = r ? r : event(h, "message.updated", USER);
    r = r ? r : event(h, "session.status", BUSY);
    return r ? r : event(h, "message.updated", AGENT);
}

static int finish(struct heard *h)
{
    int r = event(h, "message.updated", AGENT_DONE);
    r = r ? r : event(h, "session.status", IDLE);
    r = r ? r : event(h, "session.idle", "");
    return r ? r : answer(h, MU_OC_STATUS, 200, "{}");
}

static void ready(struct heard *h)
{
    assert_int_equal(prepare(h), 0);
    mu_buf_clear(&h->log);
}

static void turning(struct heard *h)
{
    ready(h);
    assert_int_equal(prompt(h), 0);
    mu_buf_clear(&h->log);
}

/* --- */

static void it_listens_before_it_asks_for_anything(void **state)
{
    (void)state;
    struct heard h;
    assert_int_equal(begin(&h, &new_one, NULL), 0);
    assert_int_equal(answer(&h, MU_OC_HEALTH, 0, ""), 0); /* never answered: asked again */
    expect_log(&h, "GET /global/health \nGET /global/health \n");
    assert_int_equal(connect_(&h), 0);
    expect_log(&h, "listen\nPOST /session {\"title\":\"muster\"}\n");
    assert_int_equal(answer(&h, MU_OC_CREATE, 200, "{\"id\":\"ses_1\"}"), 0);
    expect_log(&h, "ready(opencode 1.18.33 ses_1)\n");
    end(&h);
}

static void another_server_is_given_up(void **state)
{
    (void)state;
    static const struct {
        enum mu_oc_call call;
        int status;
        const char *body;
    } cases[] = {{MU_OC_HEALTH, 404, "{}"},
                 {MU_OC_HEALTH, 200, "<html>"},
                 {MU_OC_HEALTH, 401, ""},
                 {MU_OC_CREATE, 500, "{}"},
                 {MU_OC_CREATE, 200, "{\"id\":\"../x\"}"},
                 {MU_OC_CREATE, 0, ""}};
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        struct heard h;
        assert_int_equal(begin(&h, &new_one, NULL), 0);
        if (cases[i].call == MU_OC_CREATE) {
            assert_int_equal(connect_(&h), 0);
        }
        assert_int_equal(answer(&h, cases[i].call, cases[i].status, cases[i].body), MU_E_VERSION);
        assert_int_equal(h.oc.state, MU_ACP_BROKEN);
        assert_int_equal(event(&h, "server.connected", ""), MU_E_VERSION);
        end(&h);
    }
    struct heard h;
    assert_int_equal(begin(&h, &new_one, NULL), 0);
    int tries = 1;
    while (answer(&h, MU_OC_HEALTH, 0, "") == 0) {
        tries++;
    }
    assert_int_equal(tries, MU_OC_HEALTH_TRIES);
    end(&h);
}

static void a_conversation_is_loaded_and_its_history_is_known_as_such(void **state)
{
    (void)state;
    struct heard h;
    assert_int_equal(begin(&h, &old_one, "a/b/c"), 0);
    assert_int_equal(connect_(&h), 0);
    mu_buf_clear(&h.log);
    assert_int_equal(answer(&h, MU_OC_LOAD, 200, "{\"id\":\"ses_old\"}"), 0);
    expect_log(&h, "GET /session/ses_old/message?limit=40 \n");
    static const char history[] =
        "[{\"info\":{\"id\":\"msg_8\",\"role\":\"user\"},\"parts\":[]},{\"info\":{\"id\":\"msg_9\","
        "\"role\":\"assistant\",\"parentID\":\"msg_8\"},\"parts\":[{\"id\":\"prt_1\",\"messageID\":"
        "\"msg_9\",\"type\":\"text\",\"text\":\"history\"}]}]";
    assert_int_equal(answer(&h, MU_OC_READ, 200, history), 0);
    expect_log(&h, "ready(opencode 1.18.33 ses_old resumed)\n");
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("x")), 0);
    expect_log(&h,
               "POST /session/ses_old/prompt_async {\"model\":{\"providerID\":\"a\",\"modelID\":"
               "\"b/c\"},\"parts\":[{\"type\":\"text\",\"text\":\"x\"}]}\n");
    assert_int_equal(answer(&h, MU_OC_PROMPT, 204, ""), 0);
    assert_int_equal(answer(&h, MU_OC_READ, 200, history), 0); /* read again, not told */
    expect_log(&h, "");
    end(&h);

    assert_int_equal(begin(&h, &old_one, NULL), 0);
    assert_int_equal(connect_(&h), 0);
    assert_int_equal(answer(&h, MU_OC_LOAD, 404,
                            "{\"name\":\"NotFoundError\",\"data\":{\"message\":"
                            "\"Session not found\"}}"),
                     0);
    mu_buf_clear(&h.log);
    assert_int_equal(answer(&h, MU_OC_CREATE, 200, "{\"id\":\"ses_1\"}"), 0);
    expect_log(&h, "ready(opencode 1.18.33 ses_1 not:Session not found)\n");
    end(&h);
}

static void words_are_told_once_however_they_come(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
#define PART "'part':{'id':'prt_1','messageID':'msg_2','type':'text','text':"
    assert_int_equal(event(&h, "message.part.updated", PART "''}"), 0);
    assert_int_equal(event(&h, "message.part.delta",
                           "'messageID':'msg_2','partID':'prt_1','field':'text','delta':'Hel'"),
                     0);
    assert_int_equal(event(&h, "message.part.updated", PART "'Hello'}"), 0);
    assert_int_equal(event(&h, "message.part.updated", PART "'Hello'}"), 0);
    assert_int_equal(event(&h, "message.part.updated", PART "'Hell'}"), 0); /* trimmed */
    assert_int_equal(
        event(&h, "message.part.updated",
              "'part':{'id':'prt_2','messageID':'msg_2','type':'reasoning','text':''}"),
        0);
    assert_int_equal(event(&h, "message.part.delta",
                           "'messageID':'msg_2','partID':'prt_2','field':'text','delta':'hm'"),
                     0);
    /* of the user, of nobody, of another conversation */
    assert_int_equal(
        event(&h, "message.part.updated",
              "'part':{'id':'prt_3','messageID':'msg_1','type':'text','text':'do it'}"),
        0);
    assert_int_equal(event(&h, "message.part.delta",
                           "'messageID':'msg_7','partID':'prt_4','field':'text','delta':'x'"),
                     0);
    assert_int_equal(mu_oc_event(&h.oc, MU_B("{\"type\":\"session.idle\",\"properties\":"
                                             "{\"sessionID\":\"ses_2\"}}")),
                     0);
    expect_log(&h, "text(Hel)\ntext(lo)\nthought(hm)\n");
    assert_int_equal(
        event(&h, "message.part.updated",
              "'part':{'id':'prt_5','messageID':'msg_2','type':'step-finish','cost':0.5,"
              "'tokens':{'input':10,'output':3,'reasoning':1,'cache':{'read':5,"
              "'write':2}}}"),
        0);
    assert_int_equal(finish(&h), 0);
    expect_log(&h, "update(usage_update {\"sessionUpdate\":\"usage_update\",\"used\":21,"
                   "\"cost\":0.5})\nGET /session/status \nturn(0 end_turn 17 4)\n");
    end(&h);
}

static void tools_are_told_when_they_change(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
#define TOOL(name, state)                                                                          \
    "'part':{'id':'prt_1','messageID':'msg_2','type':'tool','callID':'c1','tool':'" name           \
    "','state':{" state "}}"
    const char *const told[] = {
        TOOL("write", "'status':'pending','input':{}"),
        TOOL("write", "'status':'running','input':{'filePath':'a.txt','content':'x'}"),
        TOOL("write", "'status':'running','input':{'filePath':'a.txt','content':'x'},"
                      "'metadata':{'output':'half'}"),
        TOOL("write", "'status':'pending','input':{}"), /* late */
        TOOL("write", "'status':'completed','input':{'filePath':'a.txt','content':'x'},"
                      "'output':'Wrote it.','title':'a.txt','metadata':{'filepath':"
                      "'/workspace/a.txt'}"),
        TOOL("write", "'status':'error','error':'no'"),
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(told); i++) {
        assert_int_equal(event(&h, "message.part.updated", told[i]), 0);
    }
    expect_log(
        &h, "tool(c1 write edit 'write' 0 args= result=)\n"
            "tool(c1 write edit 'a.txt' 1 args={\"filePath\":\"a.txt\",\"content\":\"x\"} result= "
            "/workspace/a.txt)\n"
            "tool(c1 write edit 'a.txt' 2 args={\"filePath\":\"a.txt\",\"content\":\"x\"} "
            "result=Wrote it. /workspace/a.txt)\n");
    end(&h);
}

#define ASKED                                                                                      \
    "'id':'per_1','permission':'bash','patterns':['ls'],'metadata':{'command':'ls x'},"            \
    "'tool':{'messageID':'msg_2','callID':'c1'}"
#define RUNS TOOL("bash", "'status':'running','input':{'command':'ls x','workdir':'/w'}")

static void a_permission_waits_for_its_tool_but_not_for_ever(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(event(&h, "permission.asked", ASKED), 0);
    assert_int_equal(event(&h, "permission.asked", ASKED), 0);
    assert_true(mu_oc_patience(&h.oc) < MU_OC_HOLD_MS);
    expect_log(&h, "");
    assert_int_equal(event(&h, "message.part.updated", RUNS), 0);
    expect_log(&h, "tool(c1 bash execute 'ls x' 1 args={\"command\":\"ls x\",\"workdir\":\"/w\"} "
                   "result=)\nask(1 c1 execute 'ls x' command=ls x url= same)\n");
    assert_int_equal(mu_oc_decide(&h.oc, 1, MU_ACP_ALLOW, "unused"), 0);
    assert_int_equal(mu_oc_decide(&h.oc, 1, MU_ACP_ALLOW, NULL), MU_E_NOT_FOUND);
    expect_log(&h, "POST /permission/per_1/reply {\"reply\":\"once\"}\n");
    assert_int_equal(event(&h, "permission.replied", "'requestID':'per_1','reply':'once'"), 0);
    assert_int_equal(answer(&h, MU_OC_REPLY, 404, "{}"), 0);
    expect_log(&h, ""); /* that was us */

    assert_int_equal(event(&h, "permission.asked",
                           "'id':'per_2','permission':'webfetch','patterns':['u'],'metadata':"
                           "{'url':'http://h/'},'tool':{'callID':'c2'}"),
                     0);
    assert_int_equal(mu_oc_tick(&h.oc, 1000), 0);
    assert_int_equal(mu_oc_tick(&h.oc, 1000 + MU_OC_HOLD_MS - 1), 0);
    expect_log(&h, "");
    assert_int_equal(mu_oc_tick(&h.oc, 1000 + MU_OC_HOLD_MS), 0);
    expect_log(&h, "ask(2 c2 fetch 'u' command= url=http://h/)\n"); /* not the same as any */
    assert_int_equal(mu_oc_decide(&h.oc, 2, MU_ACP_DENY, "no \"net\""), 0);
    expect_log(&h, "POST /permission/per_2/reply "
                   "{\"reply\":\"reject\",\"message\":\"no \\\"net\\\"\"}\n");
    assert_int_equal(answer(&h, MU_OC_REPLY, 500, "{}"), MU_E_IO);
    end(&h);
}

static void what_others_decide_is_seen(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(event(&h, "message.part.updated", RUNS), 0);
    assert_int_equal(event(&h, "permission.asked", ASKED), 0);
    mu_buf_clear(&h.log);
    assert_int_equal(event(&h, "permission.replied", "'requestID':'per_1','reply':'always'"), 0);
    expect_log(&h, "foreign(1)\ngone(1)\n");
    /* a refusal takes the others of its conversation with it: nothing to be alarmed of */
    assert_int_equal(event(&h, "permission.asked", ASKED), 0);
    mu_buf_clear(&h.log);
    assert_int_equal(event(&h, "permission.replied", "'requestID':'per_1','reply':'reject'"), 0);
    expect_log(&h, "gone(2)\n");
    /* as after a lost stream */
    assert_int_equal(event(&h, "permission.asked", ASKED), 0);
    mu_buf_clear(&h.log);
    assert_int_equal(answer(&h, MU_OC_QUESTIONS, 200, "[]"), 0);
    expect_log(&h, "");
    assert_int_equal(answer(&h, MU_OC_PERMISSIONS, 200, "[]"), 0);
    expect_log(&h, "gone(3)\n");
    end(&h);
}

static void paths_of_an_edit_are_known(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(event(&h, "permission.asked",
                           "'id':'per_1','permission':'edit','patterns':['a','./b'],'metadata':{}"),
                     0);
    assert_int_equal(event(&h, "permission.asked",
                           "'id':'per_2','permission':'edit','patterns':['q'],'metadata':{"
                           "'filepath':'/w/q','files':[{'filePath':'/w/r'}]}"),
                     0);
    assert_int_equal(event(&h, "permission.asked",
                           "'id':'per_3','permission':'external_directory','patterns':['/tmp/*'],"
                           "'metadata':{'directories':['/tmp'],'command':'ls /tmp'}"),
                     0);
    assert_int_equal(event(&h, "permission.asked",
                           "'id':'per_4','permission':'doom_loop','patterns':[],'metadata':{}"),
                     0);
    expect_log(&h, "ask(1 permission-1 edit 'a' command= url= /workspace/a /workspace/b)\n"
                   "ask(2 permission-2 edit 'q' command= url= /w/q /w/r)\n"
                   "ask(3 permission-3 other 'ls /tmp' command=ls /tmp url= /tmp)\n"
                   "ask(4 permission-4 other 'doom_loop' command= url=)\n");
    end(&h);
}

#define TWO                                                                                        \
    "'id':'que_1','questions':[{'question':'Which?','options':[{'label':'A','description':"        \
    "'first'},{'label':'B'}]},{'question':'Name?','multiple':true,'options':[]}]"

static void questions_are_answered_together(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(event(&h, "question.asked", TWO), 0);
    expect_log(&h, "question(1 Which?\n- A: first [\"A\",\"B\"])\nquestion(2 Name?  multiple)\n");
    assert_int_equal(mu_oc_reply(&h.oc, 2, MU_B("{\"answers\":[\"x\",\"y\"],\"other\":1}")), 0);
    assert_int_equal(mu_oc_reply(&h.oc, 2, MU_B("\"x\"")), MU_E_NOT_FOUND);
    expect_log(&h, "");
    assert_int_equal(mu_oc_reply(&h.oc, 1, MU_B("\"B\"")), 0);
    expect_log(&h, "POST /question/que_1/reply {\"answers\":[[\"B\"],[\"x\",\"y\"]]}\n");
    assert_int_equal(event(&h, "question.replied", "'requestID':'que_1'"), 0);
    static const char *const nothing[] = {
        "", "null", "{}", "[]", "5", "{\"text\":{}}", "nonsense", "\"", "{\"answer\":[1]}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(nothing); i++) {
        mu_buf_clear(&h.log);
        assert_int_equal(event(&h, "question.asked", TWO), 0);
        unsigned first = h.oc.last_handle - 1;
        mu_buf_clear(&h.log);
        assert_int_equal(mu_oc_reply(&h.oc, first, mu_str(nothing[i])), 0);
        char want[80];
        snprintf(want, sizeof want, "gone(%u)\nPOST /question/que_1/reject {}\n", first + 1);
        expect_log(&h, want);
    }
    assert_int_equal(event(&h, "question.asked", TWO), 0);
    mu_buf_clear(&h.log);
    assert_int_equal(mu_oc_decide(&h.oc, h.oc.last_handle, MU_ACP_DENY, "x"), 0);
    mu_buf_clear(&h.log);
    /* answered inside the callback, the first one dismisses all */
    h.reply = "null";
    assert_int_equal(event(&h, "question.asked", TWO), 0);
    char want[200];
    snprintf(want, sizeof want,
             "question(%u Which?\n- A: first [\"A\",\"B\"])\ngone(%u)\n"
             "POST /question/que_1/reject {}\n",
             h.oc.last_handle - 1, h.oc.last_handle);
    expect_log(&h, want);
    end(&h);
}

static void requests_are_bounded(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    char text[200];
    for (int i = 0; i < MU_ACP_ASKS; i++) {
        snprintf(text, sizeof text, "'id':'per_%d','permission':'x','metadata':{}", i);
        assert_int_equal(event(&h, "permission.asked", text), 0);
    }
    mu_buf_clear(&h.log);
    assert_int_equal(event(&h, "permission.asked", "'id':'per_x','permission':'x'"), 0);
    assert_int_equal(event(&h, "question.asked", TWO), 0);
    expect_log(&h, "POST /permission/per_x/reply {\"reply\":\"reject\",\"message\":\"too many "
                   "permissions are waited for\"}\nPOST /question/que_1/reject {}\n");
    for (int i = 0; i < 3 * MU_OC_PARTS; i++) {
        snprintf(text, sizeof text,
                 "'part':{'id':'prt_%d','messageID':'msg_2','type':'text','text':'x'}", i);
        assert_int_equal(event(&h, "message.part.updated", text), 0);
        snprintf(text, sizeof text, "'info':{'id':'msg_z%d','role':'assistant'}", i);
        assert_int_equal(event(&h, "session.updated", text), 0);
    }
    end(&h);
}

static void a_late_end_of_one_turn_is_not_that_of_the_next(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(event(&h, "permission.asked", "'id':'per_1','permission':'x','metadata':{}"),
                     0);
    mu_buf_clear(&h.log);
    assert_int_equal(mu_oc_cancel(&h.oc), 0);
    assert_int_equal(answer(&h, MU_OC_ABORT, 200, "true"), 0);
    assert_int_equal(event(&h, "permission.asked", "'id':'per_2','permission':'x','metadata':{}"),
                     0);
    assert_int_equal(event(&h, "session.error", "'error':{'name':'MessageAbortedError'}"), 0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h,
               "POST /session/ses_1/abort \nPOST /permission/per_2/reply {\"reply\":\"reject\"}\n"
               "GET /session/status \nturn(2 cancelled -1 -1)\n");
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("do it")), 0);
    assert_int_equal(event(&h, "message.updated", AGENT_DONE), 0); /* of the first one */
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_PROMPT, 204, ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, PROMPTED "GET /session/status \n");
    assert_int_equal(event(&h, "session.status", BUSY), 0);
    assert_int_equal(
        event(&h, "message.updated", "'info':{'id':'msg_4','role':'assistant','parentID':'msg_3'}"),
        0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{\"ses_1\":{\"type\":\"busy\"}}"), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0); /* asked again, not whole */
    expect_log(&h, "GET /session/status \nGET /session/status \n");
    assert_int_equal(event(&h, "message.updated",
                           "'info':{'id':'msg_4','role':'assistant','parentID':'msg_3','finish':"
                           "'length','time':{'completed':1}}"),
                     0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, "GET /session/status \nturn(0 max_tokens -1 -1)\n");
    end(&h);
}

static void one_that_begins_after_it_was_cancelled_is_cancelled_again(void **state)
{
    (void)state;
    struct heard h;
    ready(&h);
    assert_int_equal(mu_oc_cancel(&h.oc), 0); /* no turn: nothing */
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("do it")), 0);
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("do it")), MU_E_CONFLICT);
    assert_int_equal(answer(&h, MU_OC_PROMPT, 204, ""), 0);
    assert_int_equal(mu_oc_cancel(&h.oc), 0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, PROMPTED "POST /session/ses_1/abort \nGET /session/status \n");
    assert_int_equal(event(&h, "session.status", BUSY), 0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, "POST /session/ses_1/abort \nGET /session/status \nturn(2 cancelled -1 -1)\n");
    assert_int_equal(event(&h, "session.status", BUSY), 0); /* a turn that nobody wants */
    expect_log(&h, "POST /session/ses_1/abort \n");
    end(&h);
}

static void errors_have_their_words(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(
        event(&h, "session.error", "'error':{'name':'UnknownError','data':{'message':'no model'}}"),
        0);
    assert_int_equal(event(&h, "session.error", "'error':{'name':'Again'}"), 0);
    assert_int_equal(event(&h, "session.idle", ""), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, "GET /session/status \nturn(1 no model -1 -1)\n");
    /* one that it gets over */
    assert_int_equal(prompt(&h), 0);
    assert_int_equal(event(&h, "session.error", "'error':{'name':'Overloaded'}"), 0);
    assert_int_equal(event(&h, "message.updated",
                           "'info':{'id':'msg_5','role':'assistant','time':{'completed':1}}"),
                     0);
    mu_buf_clear(&h.log);
    assert_int_equal(finish(&h), 0);
    expect_log(&h, "GET /session/status \nturn(0 end_turn -1 -1)\n");
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("do it")), 0);
    assert_int_equal(answer(&h, MU_OC_PROMPT, 400, "{\"data\":{\"message\":\"what?\"}}"), 0);
    expect_log(&h, PROMPTED "turn(1 the prompt was not taken: what? -1 -1)\n");
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("do it")), 0);
    assert_int_equal(answer(&h, MU_OC_PROMPT, 0, ""), 0);
    expect_log(&h, PROMPTED "POST /session/ses_1/abort \n"
                            "turn(1 the prompt was not taken: no answer -1 -1)\n");
    h.fail_call = MU_E_UNAVAILABLE;
    assert_int_equal(mu_oc_prompt(&h.oc, MU_B("do it")), MU_E_UNAVAILABLE);
    assert_int_equal(h.oc.state, MU_ACP_BROKEN);
    end(&h);
}

static void silence_is_looked_into(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(mu_oc_tick(&h.oc, 1), 0);
    assert_int_equal(mu_oc_tick(&h.oc, MU_OC_SILENCE_MS), 0);
    expect_log(&h, "");
    assert_int_equal(mu_oc_tick(&h.oc, MU_OC_SILENCE_MS + 1), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{\"ses_1\":{\"type\":\"busy\"}}"), 0);
    expect_log(&h, "GET /session/status \n");
    assert_int_equal(mu_oc_tick(&h.oc, MU_OC_SILENCE_MS + 2), 0);
    assert_int_equal(mu_oc_tick(&h.oc, 2 * MU_OC_SILENCE_MS + 2), 0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, "GET /session/status \nturn(0 end_turn -1 -1)\n");
    end(&h);
}

static void a_lost_stream_is_made_good(void **state)
{
    (void)state;
    struct heard h;
    turning(&h);
    assert_int_equal(event(&h, "message.part.delta",
                           "'messageID':'msg_2','partID':'prt_1','field':'text','delta':'Hel'"),
                     0);
    assert_int_equal(event(&h, "server.connected", ""), 0);
    expect_log(&h, "text(Hel)\nGET /permission \nGET /question \n"
                   "GET /session/ses_1/message?limit=40 \nGET /session/status \n");
    assert_int_equal(answer(&h, MU_OC_PERMISSIONS, 200,
                            "[{\"id\":\"per_1\",\"permission\":\"x\",\"metadata\":{}}]"),
                     0);
    assert_int_equal(answer(&h, MU_OC_QUESTIONS, 0, ""), 0);
    assert_int_equal(
        answer(
            &h, MU_OC_READ, 200,
            "[{\"info\":{\"id\":\"msg_1\",\"role\":\"user\"},\"parts\":[]},{\"info\":{\"id\":"
            "\"msg_2\",\"role\":\"assistant\",\"parentID\":\"msg_1\",\"time\":{\"completed\":1}},"
            "\"parts\":[{\"id\":\"prt_1\",\"messageID\":\"msg_2\",\"type\":\"text\",\"text\":"
            "\"Hello\"}]}]"),
        0);
    assert_int_equal(answer(&h, MU_OC_STATUS, 200, "{}"), 0);
    expect_log(&h, "ask(1 permission-1 other 'x' command= url=)\ntext(lo)\ngone(1)\n"
                   "turn(0 end_turn -1 -1)\n");
    end(&h);
}

static int body(void *arg)
{
    (void)arg;
    struct heard h;
    int r = prepare(&h);
    if (!r) {
        h.decision = MU_ACP_DENY;
        h.words = "because";
        h.reply = "\"me\"";
        r = prompt(&h);
        r = r ? r : event(&h, "message.part.updated", PART "'Hello'}");
        r = r ? r : event(&h, "permission.asked", ASKED);
        r = r ? r : event(&h, "message.part.updated", RUNS);
        r = r ? r : event(&h, "question.asked", TWO);
        r = r ? r : event(&h, "todo.updated", "'todos':[]");
        r = r ? r : finish(&h);
    }
    end(&h);
    return r;
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    each_allocation_fails(body, NULL);
    assert_int_equal(body(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_listens_before_it_asks_for_anything),
        cmocka_unit_test(another_server_is_given_up),
        cmocka_unit_test(a_conversation_is_loaded_and_its_history_is_known_as_such),
        cmocka_unit_test(words_are_told_once_however_they_come),
        cmocka_unit_test(tools_are_told_when_they_change),
        cmocka_unit_test(a_permission_waits_for_its_tool_but_not_for_ever),
        cmocka_unit_test(what_others_decide_is_seen),
        cmocka_unit_test(paths_of_an_edit_are_known),
        cmocka_unit_test(questions_are_answered_together),
        cmocka_unit_test(requests_are_bounded),
        cmocka_unit_test(a_late_end_of_one_turn_is_not_that_of_the_next),
        cmocka_unit_test(one_that_begins_after_it_was_cancelled_is_cancelled_again),
        cmocka_unit_test(errors_have_their_words),
        cmocka_unit_test(silence_is_looked_into),
        cmocka_unit_test(a_lost_stream_is_made_good),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
