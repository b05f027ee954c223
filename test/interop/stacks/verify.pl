# Verifies tokens with Crypt::JWT, as verify.mjs does with its libraries.
use strict;
use warnings;

use Crypt::JWT qw(decode_jwt);
use HTTP::Tiny;
use JSON::PP;

open my $file, '<', $ARGV[0] or die $!;
my $case = decode_json(do { local $/; <$file> });

sub fetch {
    my $answer = HTTP::Tiny->new->get($_[0]);
    die "$answer->{status} $_[0]" unless $answer->{success};
    return $answer->{content};
}

# It fetches nothing: the application does, here once for each token.
sub attempt {
    my ($url, $token) = @_;
    my $ok = eval {
        decode_jwt(
            token => $token, kid_keys => fetch($url), accepted_alg => $case->{algorithms}, verify_exp => 1, verify_nbf => 1,
            verify_iss => sub { $_[0] eq $case->{issuer} }, verify_aud => sub { $_[0] eq $case->{audience} });
        1;
    };
    return $ok ? '' : "$@";
}

my $base = $case->{base};
my %result = (version => $Crypt::JWT::VERSION, early => attempt("$base/keys/ES256", $case->{early}));
for my $alg (@{ $case->{algorithms} }) {
    $result{alone}{$alg} = attempt("$base/keys/$alg", $case->{tokens}{$alg});
    $result{mixed}{$alg} = attempt("$base/keys/mixed", $case->{tokens}{$alg});
}
$result{before} = attempt("$base/keys/rotating/perl", $case->{tokens}{ES256});
$result{unknown} = attempt("$base/keys/rotating/perl", $case->{next});
fetch("$base/rotate/perl");
$result{next} = attempt("$base/keys/rotating/perl", $case->{next});
$result{$_} = attempt("$base/keys/ES256", $case->{$_}) for qw(late tampered foreign elsewhere);
print encode_json({ 'Crypt::JWT' => \%result });
