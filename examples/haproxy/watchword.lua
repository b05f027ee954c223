-- Asks Watchword whether a request's access token is good. Sets txn.watchword to
-- the answer's status, and, if that is 200, the answer's X-Auth-* headers.
local url = "http://127.0.0.1:8080/api/verify"

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
	local answer = core.httpclient():get{ url = url, headers = { authorization = values }, timeout = 2000 }
	if answer == nil or answer.status == nil then
		return
	end
	if answer.status == 200 then
		for name, list in pairs(answer.headers) do
			if string.sub(name, 1, 7) == "x-auth-" then
				txn.http:req_set_header(name, list[0])
			end
		end
	end
	txn:set_var("txn.watchword", answer.status)
end)
