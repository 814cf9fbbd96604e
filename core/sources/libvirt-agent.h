/* core/sources/libvirt-agent.h - the guest agent, asked through libvirt.
 *
 * It is a program in the guest: it may answer late or never, and libvirt waits for it without an end. So each question is
 * asked in a thread of its own, which is left to itself when patience ends; libvirt puts later questions behind it. */
#pragma once

#include <stdatomic.h>

#include <libvirt/libvirt.h>

#include "util/reason.h"

typedef enum AgentRequest {
        AGENT_PING,
        AGENT_FREEZE, /* all file systems */
        AGENT_THAW,   /* no harm where nothing is frozen */
} AgentRequest;

/* -ETIMEDOUT: no answer within patience_ms; -ECANCELED; else as libvirt_code() says. cancel may be NULL. */
int libvirt_ask_agent(virDomainPtr domain, AgentRequest request, unsigned patience_ms, const atomic_bool *cancel,
                      Reason *reterr);
