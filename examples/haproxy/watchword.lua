-- Asks Watchword whether a request's access token is good. Sets txn.watchword to
-- the answer's status, and, if that is 200, the answer's X-Auth-* headers. Sets it
-- to 431 if the request has no room for them. Sets txn.retry_after to the seconds
-- after which a client that was refused may try again.
local url = "http://127.0.0.1:8080/api/verify"

-- identity returns the X-Auth-* headers of an answer, or nil if they do not say who it is.
local function identity(answer)
	local headers = {}
	for name, list in pairs(answer.headers) do
		if string.sub(name, 1, 7) == "x-auth-" then
			if list[1] ~= nil then
				return nil
			end
			headers[name] = list[0]
		end
	end
	if headers["x-auth-subject"] == nil or headers["x-auth-subject"] == "" then
		return nil
	end
	return headers
end

-- set sets the headers of a request, and reports whether all of them are there. HAProxy
-- says nothing when its buffer is full, and leaves the header out.
local function set(http, headers)
	for name, value in pairs(headers) do
		http:req_set_header(name, value)
	end
	local there = http:req_get_headers()
	for name, value in pairs(headers) do
		if there[name] == nil or there[name][0] ~= value or there[name][1] ~= nil then
			return false
		end
	end
	return true
end

core.register_action("watchword", { "http-req" }, function(txn)
	txn:set_var("txn.watchword", 0)
	local authorization = txn.http:req_get_headers()["authorization"]
	if authorization == nil then
		txn:set_var("txn.watchword", 401)
		return
	end
	local values = {}
	for _, value in pairs(authorization) do
		table.insert(values, value)
	end
	-- Where HAProxy is one of server.trusted_proxies, the second header is the client's address.
	local headers = { authorization = values, ["x-forwarded-for"] = { txn.f:src() } }
	local answer = core.httpclient():get{ url = url, headers = headers, timeout = 2000 }
	if answer == nil or answer.status == nil then
		return
	end
	local status = answer.status
	local retry_after = answer.headers["retry-after"]
	if retry_after ~= nil then
		txn:set_var("txn.retry_after", retry_after[0])
	end
	if status == 200 then
		local identity = identity(answer)
		if identity == nil then
			return
		end
		if not set(txn.http, identity) then
			status = 431
		end
	end
	txn:set_var("txn.watchword", status)
end)
