/* core/libraries/libvirt-agent.h - the guest agent: asked, but not waited for without end. */
#pragma once

#include <stdatomic.h>

#include "libraries/libvirt-functions.h"

typedef enum AgentRequest {
        AGENT_PING,
        AGENT_FREEZE, /* all file systems */
        AGENT_THAW,   /* no harm where nothing is frozen */
} AgentRequest;

/* Asks the guest agent, which is a program in the guest: it may answer late or never, and libvirt waits without an end. So
 * each question has a thread of its own, which is left to itself when patience ends; libvirt puts later questions behind it.
 * -ETIMEDOUT: no answer within patience_ms; -ECANCELED; else as libvirt_code() says. cancel may be NULL. */
int libvirt_ask_agent(virDomainPtr domain, AgentRequest request, unsigned patience_ms, const atomic_bool *cancel,
                      Reason *reterr);
